"""Training, export and measurement of the codec's models; needs torch, which the service never does."""
