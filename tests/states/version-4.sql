-- 0f8fe2a4926579bb8e256bb5d69756ca.2 of guarded: 100 bytes
-- 3096ad7aa6f9ae2be85487f14e9f0930.1 of begun: 900 bytes
-- 35408b89b58d91b21f5e6eb73229aebe.1 of provisional: 3000 bytes
-- 77c590c32bcb34d11f3dd608ae8ad3df.1 of small: 800 bytes
-- 95084865de176701c1cce81d22407c57.1 of written: 1200 bytes
-- 9789151fc03bdb8cec52c4c1805adb85.3 of half: 32768 bytes
-- ba69dde18fef8234ffe42ff06ddbbfbe.1 of tus: 1000 bytes
-- e7513401405589ad1cd6862a39213755.1 of large: 65536 bytes
-- e7513401405589ad1cd6862a39213755.2 of large: 400 bytes
BEGIN TRANSACTION;
CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "part_file" VALUES('0f8fe2a4926579bb8e256bb5d69756ca',2,100,X'5D5CF5BD27C67842');
INSERT INTO "part_file" VALUES('3096ad7aa6f9ae2be85487f14e9f0930',1,900,X'6A2BC47E212A8807');
INSERT INTO "part_file" VALUES('35408b89b58d91b21f5e6eb73229aebe',1,2000,X'ADF3341B97149913');
INSERT INTO "part_file" VALUES('77c590c32bcb34d11f3dd608ae8ad3df',1,800,X'4813E117C154AFF2');
INSERT INTO "part_file" VALUES('7c769785345c0cb322669117117037bb',1,700,X'FE9BAF29A9DCAF35');
INSERT INTO "part_file" VALUES('9789151fc03bdb8cec52c4c1805adb85',3,32768,X'4AB76F5BB94CDFA3');
INSERT INTO "part_file" VALUES('ba69dde18fef8234ffe42ff06ddbbfbe',1,1000,X'C3C2DE3629979F7E');
INSERT INTO "part_file" VALUES('e7513401405589ad1cd6862a39213755',1,65536,X'C3B881C8756E57F3');
INSERT INTO "part_file" VALUES('e7513401405589ad1cd6862a39213755',2,400,X'16F9F682364F5176');
CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB, hashes TEXT,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "receipt" VALUES('0f8fe2a4926579bb8e256bb5d69756ca',1,65536,'"1bcccea696762e61"',X'6B9B94616A8C7FD8',NULL,'{"sha256": "hADIcQJRZnioUAfdOln6+1aBlNzUJUcl4di2PXS6B4cAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=="}');
INSERT INTO "receipt" VALUES('9789151fc03bdb8cec52c4c1805adb85',1,65536,'"d1c427103c344c41"',X'8D9CF50C97F981FF',NULL,NULL);
INSERT INTO "receipt" VALUES('9789151fc03bdb8cec52c4c1805adb85',2,65536,'"89eb2f1e7bd5d47e"',X'F6DE6354D2299C11',NULL,NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "setting" VALUES('boot_id','this boot');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    , provisional INTEGER, metadata TEXT, guards TEXT, digests TEXT, credential TEXT, max_bytes INTEGER, overwrite INTEGER NOT NULL DEFAULT 1) WITHOUT ROWID;
INSERT INTO "upload" VALUES('0f8fe2a4926579bb8e256bb5d69756ca','guarded','anonymous','open',NULL,1.79538594294552016255e+09,1.79538594301750564579e+09,NULL,NULL,NULL,65636,NULL,NULL,NULL,'446fcec2a3d811736110e578',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "1d6a51afc010c3276d572d76a787dfb1", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,'{"sha256": "77aaeb0d95947b2abccefdb119a8d23a75847ced62be4df894d10f842bc3fbb2"}',NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('14f24b154413569d61ae8bec07210623','complete','anonymous','complete',NULL,1.79538594245690703386e+09,1.79538594246968340878e+09,1.79538594247704863548e+09,NULL,1000,1000,1000,1,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "fbf0ab7b5efe446d0b39a5df370232d8", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}','{"key": "complete", "size": 1000, "etag": "\"f5b165224a58b791\"", "token": "fbf0ab7b5efe446d0b39a5df370232d8", "checksums": {"crc64nvme": "JUR72tqb9DU="}, "content_type": null, "modified": "2026-11-22T22:19:02+00:00", "checksum_type": "FULL_OBJECT", "encryption": null}',NULL,NULL,NULL,'{"crc64nvme": "25447bdada9bf435"}',NULL,NULL,1);
INSERT INTO "upload" VALUES('3096ad7aa6f9ae2be85487f14e9f0930','begun','anonymous','open',NULL,1.79538594254023265838e+09,1.79538594256348681445e+09,NULL,NULL,NULL,900,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "aa2ecd247ab60fb173870d2d0fcbe7df", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('35408b89b58d91b21f5e6eb73229aebe','provisional','anonymous','open',NULL,1.795385942711815834e+09,NULL,NULL,NULL,NULL,2000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "eca7e92827a6503ffbb9e79b1ff3d4b2", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,2000,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('77c590c32bcb34d11f3dd608ae8ad3df','small','anonymous','sealed',NULL,1.79538594311497855184e+09,1.79538594312063288691e+09,NULL,NULL,800,800,800,2,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "0918608bb7d384c927e1fc1d304c4014", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('7c769785345c0cb322669117117037bb','cancelled','anonymous','cancelled',NULL,1.79538594249494481091e+09,1795385942.52506,1.79538594253587222102e+09,NULL,NULL,700,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "57f7bbfa8da80c6c8b141c6a9fee17e0", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('95084865de176701c1cce81d22407c57','written','anonymous','open',NULL,1.79538594307442855835e+09,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "513588b469725f0d5eac3911bafadb1e", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('9789151fc03bdb8cec52c4c1805adb85','half','anonymous','open',NULL,1.79538594260376191142e+09,1.7953859426544454097e+09,NULL,NULL,NULL,163840,NULL,NULL,NULL,'df6af1d8303e61cdc4bb86c3',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "9fb6cd16c2f1abc590fac762c10f0f3a", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('ba69dde18fef8234ffe42ff06ddbbfbe','tus','anonymous','open',NULL,1.7953859427881782055e+09,1.79538594281813740729e+09,NULL,4000,4000,1000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "0293ea8b91d715c13fdbb1211fd8a56d", "checksum": "crc64nvme", "if_none_match": false, "content_type": "text/plain", "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,'key dHVz,filetype dGV4dC9wbGFpbg==',NULL,NULL,NULL,NULL,1);
INSERT INTO "upload" VALUES('e7513401405589ad1cd6862a39213755','large','anonymous','sealed',NULL,1.79538594317160248754e+09,1.79538594317319345479e+09,NULL,NULL,65936,65936,65936,3,1.79538594317312145236e+09,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "82b50c339ebf27f37604b2065ad3c16e", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL,NULL,NULL,NULL,NULL,1);
CREATE INDEX upload_by_state ON upload (state, ended);
CREATE INDEX upload_by_key ON upload (key, created);
COMMIT;
PRAGMA user_version = 4;
