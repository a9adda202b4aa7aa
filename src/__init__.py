"""Pneumonia detection on chest X-rays: a RetinaNet, from DICOM files to the challenge's score."""
