"""What is kept in the database."""

from django.db import models


class Order(models.Model):
    """Who has ordered, and whether the bill was sent."""

    customer = models.CharField(max_length=100)
    billed = models.BooleanField(default=False)
