"""Defects as other programs take them in: written from the masks of a report when all its pictures are done."""
