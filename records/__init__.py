"""Training data as record files: TFRecords, noisy shots of scenes, synthetic images."""
