"""The notification service is asked for nothing: it keeps what others tell."""

from sagas_framework import Service

notification_service = Service("notification_service")
