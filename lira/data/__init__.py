"""Datasets: images in memory, readers of files and folders, the image store on the device with augmentation."""
