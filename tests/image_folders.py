"""All images of a folder, whatever the labels say."""

from src.datasets.data_folder import ImageFolder
from src.radiographs.image_index import ImageFile, index_images


def image_folder(path):
    """Return a reader of all images below a folder."""
    return ImageFolder(path, index_images(path).names_by_id())


def image_files(path):
    """Return all images below a folder, named as patients are."""
    return [ImageFile(name, path) for name, path in image_paths(path).items()]


def image_paths(path):
    return {name: path / file for name, file in index_images(path).names_by_id().items()}
