// A session of o.js, a client for any OData service that others wrote, against the Business Central whose address,
// company and token are given. Prints one JSON object: what each call came to.
import odata from "odata";

const { base, company, token } = JSON.parse(process.argv[2]);
const authorized = { Authorization: `Bearer ${token}` };
const client = () =>
  odata.o(`${base}/`, {
    headers: { ...authorized, "Content-Type": "application/json" },
    batch: {
      endpoint: "$batch",
      boundaryPrefix: "batch_",
      changsetBoundaryPrefix: "changset_",
      headers: new Headers(authorized),
      useChangset: false,
      useRelativeURLs: false,
    },
  });
const customers = `companies(${company})/customers`;
const said = {};

const made = await client().post(customers, { displayName: "From o.js", city: "Graz" }).query();
said.created = [made.displayName, made.city];
const conditional = odata.o(`${base}/`, {
  headers: { ...authorized, "Content-Type": "application/json", "If-Match": made["@odata.etag"] },
});
const changed = await conditional.patch(`${customers}(${made.id})`, { phoneNumber: "1" }).fetch();
said.updated = [changed.status, (await client().get(`${customers}(${made.id})`).query()).phoneNumber];
const stale = await conditional
  .patch(`${customers}(${made.id})`, { phoneNumber: "2" })
  .fetch()
  .catch((reply) => reply);
said.stale = [stale.status, (await stale.json()).error.code];

const found = await client()
  .get(customers)
  .query({ $filter: "displayName eq 'From o.js'", $select: "displayName,phoneNumber", $orderby: "number desc", $top: 5 });
said.filtered = found.map((row) => [row.displayName, row.phoneNumber]);
said.counted = Number(await client().get(`${customers}/$count`).query());
said.changed = (await client().get(customers).query({ $filter: `lastModifiedDateTime ge ${made.lastModifiedDateTime}` }))
  .map((row) => row.displayName);

const ids = new Set();
const pages = { headers: { ...authorized, Prefer: "odata.maxpagesize=80" } };
said.pages = [];
for (let link = `${base}/${customers}?$select=id`; link; ) {
  const page = await (await odata.o(link, pages).get().fetch()).json();
  page.value.forEach((row) => ids.add(row.id));
  said.pages.push(page.value.length);
  link = page["@odata.nextLink"];
}
said.distinct = ids.size;

const [one, two, three] = await client()
  .get(`${customers}(${made.id})`)
  .post(customers, { displayName: "From a batch" })
  .get(`companies(${company})/items?$top=2&$select=number`)
  .batch();
said.batch = [
  [one.status, one.body.displayName],
  [two.status, two.body.displayName],
  [three.status, three.body.length],
];
const mixed = await client()
  .post(customers, { displayName: "Second of a batch" })
  .patch(`${customers}(${made.id})`, { phoneNumber: "3" }) // without If-Match
  .batch();
said.batchStops = mixed.map((reply) => reply.status);

const unconditional = { headers: { ...authorized, "If-Match": "*" } };
said.deleted = [];
for (const id of [made.id, two.body.id, mixed[0].body.id]) {
  const reply = await odata.o(`${base}/`, unconditional).delete(`${customers}(${id})`).fetch();
  said.deleted.push(reply.status);
}
console.log(JSON.stringify(said));
