// A real OpenID provider for the tests: the certified `oidc-provider`, with accounts that a test puts there.
//
//   node provider.mjs <redirect URI>      prints its issuer URL, runs until standard input ends
//   PUT /people/<subject> {claims}        an account: its login is the subject

import { createServer } from "node:http";
import { text } from "node:stream/consumers";
import { Provider } from "oidc-provider";

const [redirectUri] = process.argv.slice(2);
const people = new Map();

async function put(request) {
  const [, kind, subject] = new URL(request.url, "http://here").pathname.split("/");
  if (kind !== "people") return 404;
  people.set(decodeURIComponent(subject), JSON.parse(await text(request)));
  return 204;
}

function configuration() {
  return {
    clients: [
      {
        client_id: "argosy",
        client_secret: "a secret & with = signs",
        redirect_uris: [redirectUri],
        grant_types: ["authorization_code"],
        response_types: ["code"],
      },
    ],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"] },
    cookies: { keys: ["only for tests"] },
    pkce: { required: () => true },
    features: { devInteractions: { enabled: true } },
    async findAccount(_, subject) {
      const claims = people.get(subject);
      return claims && { accountId: subject, claims: async () => ({ sub: subject, ...claims }) };
    },
  };
}

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const answer = new Provider(issuer, configuration()).callback();
  server.on("request", async (request, response) => {
    if (request.method === "PUT") response.writeHead(await put(request)).end();
    else await answer(request, response);
  });
  console.log(issuer);
});

process.stdin.resume().on("end", () => process.exit(0));
