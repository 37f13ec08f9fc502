-- 3d62732211eb3be0205cabce25391f62.1 of written: 1200 bytes
-- 45c1d7fdd13a7940be497e3e8b530c2e.1 of small: 800 bytes
-- 461207fabd81056c3f933cad30d1c42b.1 of provisional: 3000 bytes
-- 762f635610664ec2d23d301cd2b40e63.2 of guarded: 100 bytes
-- 9cc677b4d6f665a48046ff7705e72841.1 of begun: 900 bytes
-- a19709682246bcdd7eeb45a9e64ef4b1.1 of tus: 1000 bytes
-- a96c602b66855fa512e6fbe67381034f.3 of half: 32768 bytes
-- c901af67f21eefd0d1b4047129836bbb.1 of large: 65536 bytes
-- c901af67f21eefd0d1b4047129836bbb.2 of large: 400 bytes
BEGIN TRANSACTION;
CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "part_file" VALUES('45c1d7fdd13a7940be497e3e8b530c2e',1,800,X'4813E117C154AFF2');
INSERT INTO "part_file" VALUES('461207fabd81056c3f933cad30d1c42b',1,2000,X'ADF3341B97149913');
INSERT INTO "part_file" VALUES('762f635610664ec2d23d301cd2b40e63',2,100,X'5D5CF5BD27C67842');
INSERT INTO "part_file" VALUES('9cc677b4d6f665a48046ff7705e72841',1,900,X'6A2BC47E212A8807');
INSERT INTO "part_file" VALUES('a19709682246bcdd7eeb45a9e64ef4b1',1,1000,X'C3C2DE3629979F7E');
INSERT INTO "part_file" VALUES('a96c602b66855fa512e6fbe67381034f',3,32768,X'4AB76F5BB94CDFA3');
INSERT INTO "part_file" VALUES('c901af67f21eefd0d1b4047129836bbb',1,65536,X'C3B881C8756E57F3');
INSERT INTO "part_file" VALUES('c901af67f21eefd0d1b4047129836bbb',2,400,X'16F9F682364F5176');
INSERT INTO "part_file" VALUES('f224b2441741cd5a9e14cd51f8f2b5be',1,700,X'FE9BAF29A9DCAF35');
CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB, hashes TEXT,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "receipt" VALUES('762f635610664ec2d23d301cd2b40e63',1,65536,'"1bcccea696762e61"',X'6B9B94616A8C7FD8',NULL,'{"sha256": "hADIcQJRZnioUAfdOln6+1aBlNzUJUcl4di2PXS6B4cAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}');
INSERT INTO "receipt" VALUES('a96c602b66855fa512e6fbe67381034f',1,65536,'"d1c427103c344c41"',X'8D9CF50C97F981FF',NULL,NULL);
INSERT INTO "receipt" VALUES('a96c602b66855fa512e6fbe67381034f',2,65536,'"89eb2f1e7bd5d47e"',X'F6DE6354D2299C11',NULL,NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "setting" VALUES('boot_id','this boot');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    , provisional INTEGER, metadata TEXT, guards TEXT, digests TEXT, credential TEXT, max_bytes INTEGER, overwrite INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
INSERT INTO "upload" VALUES('3d62732211eb3be0205cabce25391f62','written','anonymous','open',NULL,1.79538595620797419545e+09,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "93a3dd981590a0c24057ea6d3b7d4342", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('45c1d7fdd13a7940be497e3e8b530c2e','small','anonymous','sealed',NULL,1.79538595635052013396e+09,1.79538595641815662386e+09,NULL,NULL,800,800,800,2,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "824b8166601f65380a53c88447d188f0", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('461207fabd81056c3f933cad30d1c42b','provisional','anonymous','open',NULL,1.79538595566093778614e+09,NULL,NULL,NULL,NULL,2000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "7b3017e54306344006633f7d09b2261a", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,2000,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('7460e03072110d44bb80c65ce09ef277','complete','anonymous','complete',NULL,1.79538595468117523194e+09,1.79538595475900435442e+09,1.7953859548220453263e+09,NULL,1000,1000,1000,1,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "5796e0710931187532d0336a48b64052", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}','{"key": "complete", "size": 1000, "etag": "\"f5b165224a58b791\"", "token": "5796e0710931187532d0336a48b64052", "checksums": {"crc64nvme": "JUR72tqb9DU="}, "content_type": null, "modified": "2026-11-22T22:19:14+00:00", "checksum_type": "FULL_OBJECT", "encryption": null}',NULL,NULL,NULL,'{"crc64nvme": "25447bdada9bf435"}',NULL,NULL,1);
INSERT INTO "upload" VALUES('762f635610664ec2d23d301cd2b40e63','guarded','anonymous','open',NULL,1.79538595603773689268e+09,1.7953859560543377399e+09,NULL,NULL,NULL,65636,NULL,NULL,NULL,'446fcec2a3d811736110e578',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "c473c5668220a9004d04976cb9ef2702", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,'{"sha256": "77aaeb0d95947b2abccefdb119a8d23a75847ced62be4df894d10f842bc3fbb2"}',NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('9cc677b4d6f665a48046ff7705e72841','begun','anonymous','open',NULL,1.79538595512368845939e+09,1.79538595518453073505e+09,NULL,NULL,NULL,900,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "e776a9ac01e05e312950cb29490279bb", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('a19709682246bcdd7eeb45a9e64ef4b1','tus','anonymous','open',NULL,1.79538595586853194242e+09,1.79538595593843531604e+09,NULL,4000,4000,1000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "b12981b1bd5f6b9934447059bb1b64da", "checksum": "crc64nvme", "if_none_match": false, "content_type": "text/plain", "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,'key dHVz,filetype dGV4dC9wbGFpbg==',NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('a96c602b66855fa512e6fbe67381034f','half','anonymous','open',NULL,1.79538595532257223125e+09,1.79538595545513248439e+09,NULL,NULL,NULL,163840,NULL,NULL,NULL,'df6af1d8303e61cdc4bb86c3',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "b1b1df221d3f100440fa91581305ae53", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('c901af67f21eefd0d1b4047129836bbb','large','anonymous','sealed',NULL,1.7953859565522861481e+09,1.79538595657040572165e+09,NULL,NULL,65936,65936,65936,3,1.7953859565703125e+09,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "17b0ee13de9073973c7b564059b5a98b", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('f224b2441741cd5a9e14cd51f8f2b5be','cancelled','anonymous','cancelled',NULL,1.79538595484495878224e+09,1.79538595496960496906e+09,1.79538595508270692828e+09,NULL,NULL,700,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "24a596a0fa32847e9a1e7ae20cd9f7f1", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
CREATE INDEX upload_by_state ON upload (state, ended);
CREATE INDEX upload_by_key ON upload (key, created);
CREATE INDEX upload_by_subject ON upload (subject, ended);
CREATE INDEX upload_by_end ON upload (ended);
COMMIT;
PRAGMA user_version = 5;
