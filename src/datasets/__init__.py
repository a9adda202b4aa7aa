"""From DICOM files and label CSVs to batches; nothing here knows the model."""
