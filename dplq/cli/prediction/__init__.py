"""Parts of ``dplq predict``: its images, its files, its progress."""
