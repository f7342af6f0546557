"""Disks: Measurement Sets, images and regions in, arrays out, and back."""
