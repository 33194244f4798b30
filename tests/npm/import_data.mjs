// Holds documents against the messages that ZITADEL publishes: `node import_data.mjs MESSAGE FILE…`. Unknown fields are refused.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fromJson } from "@bufbuild/protobuf";
import { ExportDataResponseSchema, ImportDataRequestSchema } from "@zitadel/proto/zitadel/admin_pb.js";

const schemas = { ExportDataResponse: ExportDataResponseSchema, ImportDataRequest: ImportDataRequestSchema };
const [message, ...files] = process.argv.slice(2);
for (const file of files) {
  const read = fromJson(schemas[message], JSON.parse(readFileSync(file, "utf8")), { ignoreUnknownFields: false });
  const orgs = read.orgs ?? read.data.value.orgs;
  const users = orgs.flatMap((it) => it.humanUsers);
  const enrolled = users.filter((it) => it.user.otpCode);
  assert.notEqual(enrolled.length, 0, file);
  for (const { userId, user } of users) {
    assert.ok(userId && user.userName && user.profile.firstName && user.profile.lastName && user.email.isEmailVerified, userId);
    assert.match(user.email.email, /^[^\s@]+@[^\s@]+\.[^\s@]+$/);
  }
  console.log(`${message}: ${users.length} users, ${enrolled.length} of them with an authenticator`);
}
