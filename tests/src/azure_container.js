// Creates a container: node -e THIS ENDPOINT ACCOUNT KEY NAME. Signed as "Authorize with Shared Key" of Azure's documentation says.
const [endpoint, account, key, name] = process.argv.slice(1);
const { createHmac } = require("crypto");
const headers = { "x-ms-date": new Date().toUTCString(), "x-ms-version": "2021-12-02" };
const canonical = Object.entries(headers).map(([header, value]) => `${header}:${value}\n`).join("");
const toSign = "PUT" + "\n".repeat(12) + canonical + `/${account}${new URL(endpoint).pathname}/${name}\nrestype:container`;
const signature = createHmac("sha256", Buffer.from(key, "base64")).update(toSign).digest("base64");
fetch(`${endpoint}/${name}?restype=container`, { method: "PUT", headers: { ...headers, Authorization: `SharedKey ${account}:${signature}` } })
    .then(async (answer) => { if (answer.status !== 201) { console.error(answer.status, await answer.text()); process.exit(1); } });
