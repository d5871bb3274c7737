// A session of @odata/client, a client for any OData service that others wrote, against the Business Central whose
// address, company and sign-in are given; it signs in by itself. Prints one JSON object: what each call came to.
import { OData } from "@odata/client";

const { base, company, tokenUrl, clientId, clientSecret, scope } = JSON.parse(process.argv[2]);
const credential = { tokenUrl, clientId, clientSecret, scope };
const json = { "Content-Type": "application/json" };
const connected = (commonHeaders) =>
  OData.New4({ metadataUri: `${base}/$metadata`, credential, commonHeaders: { ...json, ...commonHeaders } });
const path = `companies(${company})/customers`;
const client = connected({});
const customers = client.getEntitySet(path);
const said = {};

const made = await customers.create({ displayName: "From @odata/client", city: "Linz" });
said.created = [made.displayName, made.city];
const one = `${path}(${made.id})`;
const read = async (options) => await client.newRequest({ collection: one, params: options });
await connected({ "If-Match": made["@odata.etag"] }).newRequest({
  collection: one,
  method: "PATCH",
  entity: { phoneNumber: "1" },
});
said.updated = (await read(OData.newOptions().select(["phoneNumber"]))).phoneNumber;
said.stale = (
  await connected({ "If-Match": made["@odata.etag"] }).newRequest({
    collection: one,
    method: "PATCH",
    entity: { phoneNumber: "2" },
  })
).error.code;

said.found = (await customers.find({ displayName: "From @odata/client" })).map((row) => row.city);
said.counted = await customers.count();
const since = OData.newOptions().filter(`lastModifiedDateTime ge ${made.lastModifiedDateTime}`);
said.changed = (await customers.query(since)).map((row) => row.displayName);

const paged = connected({ Prefer: "odata.maxpagesize=90" });
const ids = new Set();
said.pages = [];
for (let token = ""; token !== null; ) {
  const options = OData.newOptions().select(["id"]);
  const page = await paged.newRequest({
    collection: path,
    params: token ? options.custom("$skiptoken", token).custom("aid", "FIN") : options,
  });
  page.value.forEach((row) => ids.add(row.id));
  said.pages.push(page.value.length);
  token = page["@odata.nextLink"] ? new URL(page["@odata.nextLink"]).searchParams.get("$skiptoken") : null;
}
said.distinct = ids.size;

const replies = await client.execBatchRequestsJson([
  client.newBatchRequest({ collection: one }),
  client.newBatchRequest({ collection: path, method: "POST", entity: { displayName: "From a JSON batch" } }),
]);
said.batch = await Promise.all(replies.map(async (reply) => [reply.status, (await reply.json()).displayName]));
const batched = await replies[1].json();

const unconditional = connected({ "If-Match": "*" });
for (const id of [made.id, batched.id]) {
  await unconditional.newRequest({ collection: `${path}(${id})`, method: "DELETE" });
}
said.left = await customers.count(OData.newFilter().field("displayName").eqString("From @odata/client"));
console.log(JSON.stringify(said));
