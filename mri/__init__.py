"""MRI: volumes, k-space and its undersampling, the model and its validation."""
