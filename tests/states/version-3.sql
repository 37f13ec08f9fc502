-- 13f738b1c7371ffce1d282444f50c407.2 of guarded: 100 bytes
-- 2128be45630c84f62d79ee99cfa80302.1 of begun: 900 bytes
-- 4d449b87c342a1751beed75c54ecc6d8.1 of large: 65536 bytes
-- 4d449b87c342a1751beed75c54ecc6d8.2 of large: 400 bytes
-- 78e8a387229465c565deb128bf61b780.1 of tus: 1000 bytes
-- 8061c5546409579f09010aebfc6cb991.3 of half: 32768 bytes
-- 8a2e8899a0ecda6f40031edd0609ea1d.1 of written: 1200 bytes
-- 927fedfaaebf212b1c556a73d9fe4340.1 of small: 800 bytes
-- c7cb373fe6febf1c2f98f10e8d07ac25.1 of provisional: 3000 bytes
BEGIN TRANSACTION;
CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "part_file" VALUES('13f738b1c7371ffce1d282444f50c407',2,100,X'5D5CF5BD27C67842');
INSERT INTO "part_file" VALUES('2128be45630c84f62d79ee99cfa80302',1,900,X'6A2BC47E212A8807');
INSERT INTO "part_file" VALUES('4d449b87c342a1751beed75c54ecc6d8',1,65536,X'C3B881C8756E57F3');
INSERT INTO "part_file" VALUES('4d449b87c342a1751beed75c54ecc6d8',2,400,X'16F9F682364F5176');
INSERT INTO "part_file" VALUES('657625385b2c9f1c0352fb614fb711de',1,700,X'FE9BAF29A9DCAF35');
INSERT INTO "part_file" VALUES('78e8a387229465c565deb128bf61b780',1,1000,X'C3C2DE3629979F7E');
INSERT INTO "part_file" VALUES('8061c5546409579f09010aebfc6cb991',3,32768,X'4AB76F5BB94CDFA3');
INSERT INTO "part_file" VALUES('927fedfaaebf212b1c556a73d9fe4340',1,800,X'4813E117C154AFF2');
INSERT INTO "part_file" VALUES('c7cb373fe6febf1c2f98f10e8d07ac25',1,2000,X'ADF3341B97149913');
CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB, hashes TEXT,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "receipt" VALUES('13f738b1c7371ffce1d282444f50c407',1,65536,'"1bcccea696762e61"',X'6B9B94616A8C7FD8',NULL,'{"sha256": "hADIcQJRZnioUAfdOln6+1aBlNzUJUcl4di2PXS6B4cAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}');
INSERT INTO "receipt" VALUES('8061c5546409579f09010aebfc6cb991',1,65536,'"d1c427103c344c41"',X'8D9CF50C97F981FF',NULL,NULL);
INSERT INTO "receipt" VALUES('8061c5546409579f09010aebfc6cb991',2,65536,'"89eb2f1e7bd5d47e"',X'F6DE6354D2299C11',NULL,NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "setting" VALUES('boot_id','this boot');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    , provisional INTEGER, metadata TEXT, guards TEXT, digests TEXT) WITHOUT ROWID;
INSERT INTO "upload" VALUES('13f738b1c7371ffce1d282444f50c407','guarded','anonymous','open',NULL,1.7953859372388246059e+09,1.79538593725272488596e+09,NULL,NULL,NULL,65636,NULL,NULL,NULL,'446fcec2a3d811736110e578',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "6b5a32de88f84bfd9824897956b5c9c2", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,'{"sha256": "77aaeb0d95947b2abccefdb119a8d23a75847ced62be4df894d10f842bc3fbb2"}',NULL);
INSERT INTO "upload" VALUES('2128be45630c84f62d79ee99cfa80302','begun','anonymous','open',NULL,1.79538593681899666786e+09,1.79538593683220529554e+09,NULL,NULL,NULL,900,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "a9d894ade68f10e815f924ee8af5b086", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('45ea31a393c07dfff32ba9bbb8686d7e','complete','anonymous','complete',NULL,1.79538593675245428081e+09,1.7953859367579703331e+09,1.79538593676390552519e+09,NULL,1000,1000,1000,1,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "9cd9d79fd4323a33119cea53b87538c0", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}','{"key": "complete", "size": 1000, "etag": "\"f5b165224a58b791\"", "token": "9cd9d79fd4323a33119cea53b87538c0", "checksums": {"crc64nvme": "JUR72tqb9DU="}, "content_type": null, "modified": "2026-11-22T22:18:56+00:00", "checksum_type": "FULL_OBJECT", "encryption": null}',NULL,NULL,NULL,'{"crc64nvme": "25447bdada9bf435"}');
INSERT INTO "upload" VALUES('4d449b87c342a1751beed75c54ecc6d8','large','anonymous','sealed',NULL,1.79538593743393540378e+09,1.79538593744131302833e+09,NULL,NULL,65936,65936,65936,3,1.79538593744120669368e+09,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "f301cbdb6ec0ace540a05e92af9a258e", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('657625385b2c9f1c0352fb614fb711de','cancelled','anonymous','cancelled',NULL,1795385936.76937,1.79538593678750801082e+09,1.79538593681166386609e+09,NULL,NULL,700,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "7c2f17576f326cb1c9fbedd4a6c869c9", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('78e8a387229465c565deb128bf61b780','tus','anonymous','open',NULL,1.79538593707928800582e+09,1.79538593715819692615e+09,NULL,4000,4000,1000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "f899fad1a2ba377eb1a97e0658ab3058", "checksum": "crc64nvme", "if_none_match": false, "content_type": "text/plain", "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,'key dHVz,filetype dGV4dC9wbGFpbg==',NULL,NULL);
INSERT INTO "upload" VALUES('8061c5546409579f09010aebfc6cb991','half','anonymous','open',NULL,1.79538593685986804958e+09,1.79538593691149377822e+09,NULL,NULL,NULL,163840,NULL,NULL,NULL,'df6af1d8303e61cdc4bb86c3',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "7ff2bd58eabc3bad2a853830542545c0", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('8a2e8899a0ecda6f40031edd0609ea1d','written','anonymous','open',NULL,1.79538593729244065283e+09,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "c9b6938c66e6778167f8ba7584de0bc2", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('927fedfaaebf212b1c556a73d9fe4340','small','anonymous','sealed',NULL,1.7953859373176348209e+09,1.7953859373506157398e+09,NULL,NULL,800,800,800,2,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "3745398abeb5bd2f2a3a79f0a08767c4", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL);
INSERT INTO "upload" VALUES('c7cb373fe6febf1c2f98f10e8d07ac25','provisional','anonymous','open',NULL,1.79538593693308424952e+09,NULL,NULL,NULL,NULL,2000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "44e0443d3ff3b2d28a0714705602755e", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,2000,NULL,NULL,NULL);
CREATE INDEX upload_by_state ON upload (state, ended);
CREATE INDEX upload_by_key ON upload (key, created);
COMMIT;
PRAGMA user_version = 3;
