"""FMR-Net: learns a textured surface from good pictures alone and finds the defects on it."""
