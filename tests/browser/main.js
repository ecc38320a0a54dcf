// The script of the page. Each button calls a method by gRPC-web, and the output of the same name
// shows the answer.
import { createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import { EventService } from "./gen/outrider/dispatch/v1/event_service_pb.js";
import { IngestService } from "./gen/outrider/ingest/v1/ingest_service_pb.js";

const form = document.querySelector("form").elements;

// A client of a service on the server that is named in the form.
const transport = () => createGrpcWebTransport({ baseUrl: form.server.value });
const client = (service) => createClient(service, transport());
const headers = () => ({ authorization: `Bearer ${form.key.value}` });

// Calls `action` when the button is pressed. `show` appends a line to the output. An error is also
// shown as a line.
function on(name, action) {
  const output = document.getElementById(name);
  const show = (line) => output.append(`${line}\n`);
  form[name].addEventListener("click", () => action(show).catch((error) => show(`error ${error}`)));
}

on("publish", async (show) => {
  const event = { eventType: form.type.value, payload: new TextEncoder().encode(form.data.value) };
  const request = { projectId: form.project.value, event };
  const answer = await client(IngestService).publishEvent(request, { headers: headers() });
  show(`published ${answer.eventId}`);
});

on("tail", async (show) => {
  const request = { projectId: form.project.value, includePayload: true };
  for await (const { update } of client(EventService).tailEvents(request, { headers: headers() })) {
    if (update.case === "heartbeat") show("following");
    if (update.case === "event") {
      const { eventId, payload } = update.value;
      show(`event ${eventId} ${new TextDecoder().decode(payload)}`);
    }
  }
});
