"""Training data: TFRecords files, noisy shots of scenes, synthetic images."""
