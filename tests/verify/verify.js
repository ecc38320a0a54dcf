// Verifies recorded webhooks with the official Standard Webhooks library for JavaScript.
"use strict";

const fs = require("node:fs");
const library = require.resolve("standardwebhooks", { paths: [process.env.OUTRIDER_TEST_TOOLS] });
const { Webhook, WebhookVerificationError } = require(library);

const records = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
for (const { secret, headers, body } of records) {
  const webhook = new Webhook(secret);
  const bytes = Buffer.from(body, "base64");
  webhook.verify(bytes, headers, { jsonParse: false });
  let refused = false;
  try {
    webhook.verify(Buffer.concat([bytes, Buffer.from(" ")]), headers, { jsonParse: false });
  } catch (error) {
    if (!(error instanceof WebhookVerificationError)) throw error;
    refused = true;
  }
  if (!refused) throw new Error(`${headers["webhook-id"]}: a changed body verifies too`);
}
console.log(`verified ${records.length}`);
