"""The sagas that this service runs; `order_service.orchestrator` puts them to work."""
