"""Sends the shop's tasks until it is ended: 40 refreshes and 20 mails a second."""

from __future__ import annotations

import time
from itertools import count

from shop.feeds import refresh
from shop.mail import send

for number in count():
    refresh.delay(f"supplier-{number % 5}", number)
    if number % 2 == 0:
        send.delay("ada@example.org")
    time.sleep(1 / 40)
