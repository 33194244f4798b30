// The published client, unchanged, over gRPC and gRPC-Web: it enrols, removes, and lists the events of that. What a manager
// must not see, it does not.
import assert from "node:assert/strict";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { AdminService } from "@zitadel/proto/zitadel/admin_pb.js";
import { ZITADELUsers } from "@zitadel/proto/zitadel/resources/user/v3alpha/user_service_pb.js";

const { TOTPD_URL, ADMIN_TOKEN, MANAGER_TOKEN, CHECKER_TOKEN, OTHER_ORG } = process.env;

const bearer = (token) => (next) => (request) => {
  request.header.set("Authorization", `Bearer ${token}`);
  return next(request);
};

const transports = {
  "gRPC": (token) => createGrpcTransport({ baseUrl: TOTPD_URL, interceptors: [bearer(token)] }),
  "gRPC-Web": (token) =>
    createGrpcWebTransport({ baseUrl: TOTPD_URL, httpVersion: "1.1", interceptors: [bearer(token)] }),
};

for (const [name, transport] of Object.entries(transports)) {
  const users = createClient(ZITADELUsers, transport(MANAGER_TOKEN));
  const created = await users.createUser({ user: { authenticators: { usernames: [{ username: `npm-${name}` }] } } });
  const id = created.details.id;
  const { totpId } = await users.startTOTPRegistration({ id });
  await users.removeTOTPAuthenticator({ id, totpId });

  const other = createClient(ZITADELUsers, transport(ADMIN_TOKEN));
  const organization = { property: { case: "orgId", value: OTHER_ORG } };
  const elsewhere = (await other.createUser({ organization, user: {} })).details.id;

  const eventsOf = async (token, aggregateId) => {
    const admin = createClient(AdminService, transport(token));
    const { events } = await admin.listEvents({ aggregateId, asc: true, limit: 10 });
    return events;
  };
  for (const token of [ADMIN_TOKEN, MANAGER_TOKEN]) {
    const events = await eventsOf(token, id);
    const types = events.map((it) => it.type.type);
    const expected = ["user.human.mfa.otp.added", "user.human.mfa.otp.removed"];
    assert.deepEqual(types.slice(-2), expected, name);
    assert.equal(events.at(-1).aggregate.id, id);
    assert.ok(events.at(-1).creationDate.seconds > 0n);
  }
  assert.notEqual((await eventsOf(ADMIN_TOKEN, elsewhere)).length, 0, name);
  assert.deepEqual(await eventsOf(MANAGER_TOKEN, elsewhere), [], name);
  await assert.rejects(eventsOf(CHECKER_TOKEN, id), { code: Code.PermissionDenied });
  console.log(`${name}: the published npm client enrolled, removed and listed the events`);
}
