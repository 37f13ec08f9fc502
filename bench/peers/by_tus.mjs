// The reference server of tus, with its store for S3.
import http from "node:http";
import { createRequire } from "node:module";

// The packages are not beside this file.
const [modules, port] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { Server } = await import(require.resolve("@tus/server"));
const { S3Store } = await import(require.resolve("@tus/s3-store"));

const datastore = new S3Store({
  partSize: 8 * 1024 * 1024,
  // It makes room for 5 TiB if it does not know the length. With the 10,000 parts that it takes by itself that are parts
  // of 524 MiB; so many are of 8 MiB.
  maxMultipartParts: 655_360,
  maxConcurrentPartUploads: 4,
  s3ClientConfig: { bucket: "bench", endpoint: process.env.AWS_ENDPOINT_URL, forcePathStyle: true },
});
const server = new Server({ path: "/objects", datastore, namingFunction: (_, metadata) => metadata.filename });
http.createServer(server.handle.bind(server)).listen(Number(port), "127.0.0.1");
