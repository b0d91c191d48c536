"""Commands of the published Ascend recipe, read into runs of this project."""
