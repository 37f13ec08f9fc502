-- 0553396a91a3c2b8d414330fe56d76d0.1 of provisional: 3000 bytes
-- 19210d855cf9165e5655ac5739633441.1 of small: 800 bytes
-- 5dd40397924957c63af3d02ff9b4d234.1 of written: 1200 bytes
-- 677cf87a44fe7c30a5a76c8a4186e5cc.1 of begun: 900 bytes
-- 89fd46d388346aa2925213a7d62c9bea.1 of large: 65536 bytes
-- 89fd46d388346aa2925213a7d62c9bea.2 of large: 400 bytes
-- bf80a291169008c9c5e2b17f55644718.3 of half: 32768 bytes
-- c7f2a51da68548a03bf17cfb224811c2.1 of tus: 1000 bytes
BEGIN TRANSACTION;
CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "part_file" VALUES('0553396a91a3c2b8d414330fe56d76d0',1,2000,X'ADF3341B97149913');
INSERT INTO "part_file" VALUES('19210d855cf9165e5655ac5739633441',1,800,X'4813E117C154AFF2');
INSERT INTO "part_file" VALUES('677cf87a44fe7c30a5a76c8a4186e5cc',1,900,X'6A2BC47E212A8807');
INSERT INTO "part_file" VALUES('89fd46d388346aa2925213a7d62c9bea',1,65536,X'C3B881C8756E57F3');
INSERT INTO "part_file" VALUES('89fd46d388346aa2925213a7d62c9bea',2,400,X'16F9F682364F5176');
INSERT INTO "part_file" VALUES('afd9c2d4f3f4aef2c7d98324e45f7428',1,700,X'FE9BAF29A9DCAF35');
INSERT INTO "part_file" VALUES('bf80a291169008c9c5e2b17f55644718',3,32768,X'4AB76F5BB94CDFA3');
INSERT INTO "part_file" VALUES('c7f2a51da68548a03bf17cfb224811c2',1,1000,X'C3C2DE3629979F7E');
CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "receipt" VALUES('bf80a291169008c9c5e2b17f55644718',1,65536,'"d1c427103c344c41"',X'8D9CF50C97F981FF',NULL);
INSERT INTO "receipt" VALUES('bf80a291169008c9c5e2b17f55644718',2,65536,'"89eb2f1e7bd5d47e"',X'F6DE6354D2299C11',NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "setting" VALUES('boot_id','this boot');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    , provisional INTEGER, metadata TEXT) WITHOUT ROWID;
INSERT INTO "upload" VALUES('0553396a91a3c2b8d414330fe56d76d0','provisional','anonymous','open',NULL,1.79538592550051784519e+09,NULL,NULL,NULL,NULL,2000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "f7958db7fcb47b8d66565268cc48027a", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,2000,NULL);
INSERT INTO "upload" VALUES('19210d855cf9165e5655ac5739633441','small','anonymous','sealed',NULL,1.79538592576280331609e+09,1.79538592576770734791e+09,NULL,NULL,800,800,800,2,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "bf3b6953382ff10dd1f079027b1ffc55", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('5dd40397924957c63af3d02ff9b4d234','written','anonymous','open',NULL,1.79538592572490882876e+09,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "1c5816c3683628ef4fc2fc8a635b6a13", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('677cf87a44fe7c30a5a76c8a4186e5cc','begun','anonymous','open',NULL,1.79538592531060338017e+09,1.79538592535926365854e+09,NULL,NULL,NULL,900,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "6f5d1217050f2bbe99647b1baabe48cb", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('89fd46d388346aa2925213a7d62c9bea','large','anonymous','sealed',NULL,1.79538592578925728805e+09,1.79538592580222153664e+09,NULL,NULL,65936,65936,65936,3,1.7953859258021333217e+09,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "ea1fab1a279e83342904d59c297d29ab", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('afd9c2d4f3f4aef2c7d98324e45f7428','cancelled','anonymous','cancelled',NULL,1.79538592517180967331e+09,1.79538592522120642657e+09,1.79538592525920081134e+09,NULL,NULL,700,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "886ec96911ab5b51e5f55bd88164d106", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('bf80a291169008c9c5e2b17f55644718','half','anonymous','open',NULL,1.79538592539731907847e+09,1.79538592545831608769e+09,NULL,NULL,NULL,163840,NULL,NULL,NULL,'df6af1d8303e61cdc4bb86c3',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "4c87bd4cc680ef92d0080944c378ce04", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,NULL);
INSERT INTO "upload" VALUES('c7f2a51da68548a03bf17cfb224811c2','tus','anonymous','open',NULL,1.79538592570178294179e+09,1.79538592571428847312e+09,NULL,4000,4000,1000,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "51bcae437b0adb71048216b0d205b742", "checksum": "crc64nvme", "if_none_match": false, "content_type": "text/plain", "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}',NULL,NULL,'key dHVz,filetype dGV4dC9wbGFpbg==');
INSERT INTO "upload" VALUES('ce07e3061ce6a4b1f94c19dbbe708dfa','complete','anonymous','complete',NULL,1.79538592512324237824e+09,1.7953859251345894337e+09,1.79538592514683198932e+09,NULL,1000,1000,1000,1,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "4415ac70f7f50073b22ba3ef72d18b54", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}, "sse_c_key_md5": ""}','{"key": "complete", "size": 1000, "etag": "\"f5b165224a58b791\"", "token": "4415ac70f7f50073b22ba3ef72d18b54", "checksums": {"crc64nvme": "JUR72tqb9DU="}, "content_type": null, "modified": "2026-11-22T22:18:45+00:00", "checksum_type": null, "encryption": null}',NULL,NULL);
CREATE INDEX upload_by_state ON upload (state, ended);
CREATE INDEX upload_by_key ON upload (key, created);
COMMIT;
PRAGMA user_version = 2;
