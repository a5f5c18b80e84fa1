"""MRI: volumes, k-space and its undersampling, the model with its losses, validation."""
