"""A run spread over the machines of a Dask cluster: Dask schedules, tries again what a dead worker had, and places by resources."""
