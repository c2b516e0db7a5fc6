"""A shop on Flask with its worker, which leaks."""

import os

from celery import Celery
from flask import Flask, request

from otel_celery_memory import CeleryMemoryInstrumentor

app = Flask(__name__)
worker = Celery("shop", broker=os.environ.get("BROKER_URL", "redis://localhost"))
worker.conf.task_ignore_result = True
CeleryMemoryInstrumentor().instrument()

BILLED = []


@worker.task
def bill(customer):
    """Sends a bill."""
    with app.app_context():
        text = f"Dear {customer}, please pay. ".ljust(10_000, ".")
        BILLED.append(text + customer)  # the leak


@app.post("/orders")
def orders():
    """Takes an order and lets the worker send the bill."""
    bill.delay(request.form["customer"])
    return {"ordered": True}
