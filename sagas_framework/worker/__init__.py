"""Sagas as Celery workers: the orchestrator's bootsteps, the participant's tasks, and what both need."""
