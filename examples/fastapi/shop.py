"""A shop on FastAPI with its worker, which leaks."""

import os
from urllib.parse import parse_qs

from celery import Celery
from fastapi import FastAPI, Request

from otel_celery_memory import CeleryMemoryInstrumentor

app = FastAPI()
worker = Celery("shop", broker=os.environ.get("BROKER_URL", "redis://localhost"))
worker.conf.task_ignore_result = True
CeleryMemoryInstrumentor().instrument()

BILLED = []


@worker.task
def bill(customer):
    """Sends a bill."""
    text = f"Dear {customer}, please pay. ".ljust(10_000, ".")
    BILLED.append(text + customer)  # the leak


@app.post("/orders")
async def orders(request: Request):
    """Takes an order and lets the worker send the bill."""
    form = parse_qs((await request.body()).decode())
    bill.delay(form["customer"][0])
    return {"ordered": True}
