// A session of o.js, a client for any OData service that others wrote, against the Dataverse whose address and token
// are given. Prints one JSON object: what each call came to.
import odata from "odata";

const { base, token } = JSON.parse(process.argv[2]);
const authorized = { Authorization: `Bearer ${token}` };
const client = (headers = {}) =>
  odata.o(`${base}/`, {
    headers: { ...authorized, "Content-Type": "application/json", ...headers },
    batch: {
      endpoint: "$batch",
      boundaryPrefix: "batch_",
      changsetBoundaryPrefix: "changset_",
      headers: new Headers(authorized),
      useChangset: false,
      useRelativeURLs: false,
    },
  });
const said = {};

const made = await client({ Prefer: "return=representation" })
  .post("accounts", { name: "From o.js", address1_city: "Graz" })
  .query();
const one = `accounts(${made.accountid})`;
said.created = [made.name, made.address1_city];
const changed = await client({ "If-Match": made["@odata.etag"] }).patch(one, { telephone1: "1" }).fetch();
said.updated = [changed.status, (await client().get(one).query({ $select: "telephone1" })).telephone1];
const stale = await client({ "If-Match": made["@odata.etag"] })
  .patch(one, { telephone1: "2" })
  .fetch()
  .catch((reply) => reply);
said.stale = [stale.status, (await stale.json()).error.code];
said.filtered = (await client().get("accounts").query({ $filter: "name eq 'From o.js'", $select: "name", $top: 5 })).map(
  (row) => row.name,
);

const pages = { headers: { ...authorized, Prefer: "odata.maxpagesize=60" } };
const ids = new Set();
said.pages = [];
for (let link = `${base}/accounts?$select=name`; link; ) {
  const page = await (await odata.o(link, pages).get().fetch()).json();
  page.value.forEach((row) => ids.add(row.accountid));
  said.pages.push(page.value.length);
  link = page["@odata.nextLink"];
}
said.distinct = ids.size;

const tracking = { headers: { ...authorized, Prefer: "odata.track-changes" } };
const first = await (await odata.o(`${base}/accounts?$select=name`, tracking).get().fetch()).json();
await client().patch(one, { name: "Changed by o.js" }).fetch();
const gone = await client({ Prefer: "return=representation" }).post("accounts", { name: "Gone soon" }).query();
await client().delete(`accounts(${gone.accountid})`).fetch();
const delta = await (await odata.o(first["@odata.deltaLink"], tracking).get().fetch()).json();
said.delta = delta.value.map((row) => row.name ?? row.reason);

const replies = await client()
  .get(`${one}?$select=name`)
  .post("accounts", { name: "From a batch" })
  .get("accounts?$top=2&$select=name")
  .batch();
said.batch = [replies.map((reply) => reply.status), replies[0].body.name, replies[2].body.length];
const [batched] = await client().get("accounts").query({ $filter: "name eq 'From a batch'" });
said.deleted = [];
for (const id of [made.accountid, batched.accountid]) {
  said.deleted.push((await client().delete(`accounts(${id})`).fetch()).status);
}
console.log(JSON.stringify(said));
