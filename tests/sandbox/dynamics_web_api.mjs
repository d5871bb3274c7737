// A session of dynamics-web-api, a client for Dataverse that others wrote, against the address, token and version given.
// Prints one JSON object: what each call came to.
import { DynamicsWebApi } from "dynamics-web-api";

const { origin, token } = JSON.parse(process.argv[2]);
const api = new DynamicsWebApi({
  serverUrl: origin,
  dataApi: { version: "9.2" },
  onTokenRefresh: async () => token,
  includeAnnotations: "*",
});
const said = {};
const accounts = { collection: "accounts", select: ["name"] };
const fetchXml =
  '<fetch mapping="logical" count="50"><entity name="account"><attribute name="name"/><order attribute="name"/></entity></fetch>';

said.user = (await api.callFunction("WhoAmI")).UserId;
const made = await api.create({
  collection: "accounts",
  data: { name: "From Node", address1_city: "Nodeville", numberofemployees: 7 },
  returnRepresentation: true,
});
const key = made.accountid;
said.created = made.name;
await api.update({ collection: "accounts", key, data: { telephone1: "+1 555" } });
await api.updateSingleProperty({ collection: "accounts", key, fieldValuePair: { fax: "123" } });
const read = await api.retrieve({ collection: "accounts", key, select: ["telephone1", "fax"] });
said.updated = [read.telephone1, read.fax];
await api.deleteRecord({ collection: "accounts", key, fieldName: "fax" });
said.cleared = (await api.retrieve({ collection: "accounts", key, select: ["fax"] })).fax;

const person = await api.create({
  collection: "contacts",
  data: { firstname: "Nell", lastname: "Node", "parentcustomerid_account@odata.bind": `/accounts(${key})` },
  returnRepresentation: true,
});
await api.associateSingleValued({
  collection: "accounts",
  primaryKey: key,
  navigationProperty: "primarycontactid",
  relatedCollection: "contacts",
  relatedKey: person.contactid,
});
const expanded = await api.retrieve({
  collection: "accounts",
  key,
  select: ["name"],
  expand: [
    { property: "primarycontactid", select: ["fullname"] },
    { property: "contact_customer_accounts", select: ["fullname"] },
  ],
});
said.expanded = [expanded.primarycontactid.fullname, expanded.contact_customer_accounts.map((row) => row.fullname)];

const filtered = await api.retrieveMultiple({ ...accounts, filter: "address1_city eq 'Nodeville'", count: true });
said.filtered = [filtered.oDataCount, filtered.value.map((row) => row.name)];
const page = await api.retrieveMultiple({ ...accounts, maxPageSize: 50 });
const next = await api.retrieveMultiple({ ...accounts, maxPageSize: 50 }, page.oDataNextLink);
said.pages = [page.value.length, next.value.length, page.value[0].accountid !== next.value[0].accountid];
said.all = (await api.retrieveAll(accounts)).value.length;
said.counted = await api.countAll({ collection: "accounts" });
said.fetched = (await api.fetchAll({ collection: "accounts", fetchXml })).value.length;

const before = await api.retrieveMultiple({ ...accounts, trackChanges: true, maxPageSize: 5000 });
await api.update({ collection: "accounts", key, data: { name: "Changed" } });
const delta = await api.retrieveMultiple({ collection: "accounts" }, before.oDataDeltaLink);
said.delta = delta.value.map((row) => row.name);

api.startBatch();
api.create({ collection: "accounts", data: { name: "B" }, contentId: "1" });
api.create({ collection: "contacts", data: { lastname: "B", "parentcustomerid_account@odata.bind": "$1" } });
said.batch = (await api.executeBatch()).length;

said.columns = (await api.retrieveAttributes({ entityKey: "LogicalName='account'", select: ["LogicalName"] })).value
  .map((column) => column.LogicalName)
  .includes("telephone1");
await api.deleteRecord({ collection: "accounts", key });
said.gone = await api.retrieve({ collection: "accounts", key }).catch((fault) => [fault.status, fault.code]);
console.log(JSON.stringify(said));
