"""Verifies recorded webhooks with the official Standard Webhooks library for Python."""

import base64
import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def main() -> None:
    with open(sys.argv[1], encoding="utf-8") as file:
        records = json.load(file)
    for record in records:
        webhook = Webhook(record["secret"])
        body = base64.b64decode(record["body"])
        webhook.verify(body, record["headers"], json_parse=False)
        try:
            webhook.verify(body + b" ", record["headers"], json_parse=False)
        except WebhookVerificationError:
            continue
        sys.exit(f"{record['headers']['webhook-id']}: a changed body verifies too")
    print(f"verified {len(records)}")


main()
