-- 15177b819ca7204a9f211e4f4b7df7b1.1 of small: 800 bytes
-- 1527618d8444da47f1c47ae0913d08e1.1 of begun: 900 bytes
-- 19e9f34b39804f808078792ea4fdc0e1.1 of written: 1200 bytes
-- 3b0aea2c6c24d6a27c04580ca1c56d36.1 of large: 65536 bytes
-- 3b0aea2c6c24d6a27c04580ca1c56d36.2 of large: 400 bytes
-- 5b568b8113868167760baa7ae194fc00.3 of half: 32768 bytes
BEGIN TRANSACTION;
CREATE TABLE part_file (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, synced INTEGER NOT NULL, crc64nvme BLOB NOT NULL,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "part_file" VALUES('15177b819ca7204a9f211e4f4b7df7b1',1,800,X'4813E117C154AFF2');
INSERT INTO "part_file" VALUES('1527618d8444da47f1c47ae0913d08e1',1,900,X'6A2BC47E212A8807');
INSERT INTO "part_file" VALUES('3b0aea2c6c24d6a27c04580ca1c56d36',1,65536,X'C3B881C8756E57F3');
INSERT INTO "part_file" VALUES('3b0aea2c6c24d6a27c04580ca1c56d36',2,400,X'16F9F682364F5176');
INSERT INTO "part_file" VALUES('5b568b8113868167760baa7ae194fc00',3,32768,X'4AB76F5BB94CDFA3');
INSERT INTO "part_file" VALUES('c6c9638608238fdba96162a0d6cd789c',1,700,X'FE9BAF29A9DCAF35');
CREATE TABLE receipt (
        upload_id TEXT NOT NULL, number INTEGER NOT NULL, size INTEGER NOT NULL, etag TEXT NOT NULL,
        crc64nvme BLOB, sha256 BLOB,
        PRIMARY KEY (upload_id, number)
    ) WITHOUT ROWID;
INSERT INTO "receipt" VALUES('5b568b8113868167760baa7ae194fc00',1,65536,'"d1c427103c344c41"',X'8D9CF50C97F981FF',NULL);
INSERT INTO "receipt" VALUES('5b568b8113868167760baa7ae194fc00',2,65536,'"89eb2f1e7bd5d47e"',X'F6DE6354D2299C11',NULL);
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO "setting" VALUES('boot_id','this boot');
CREATE TABLE upload (
        id TEXT PRIMARY KEY, key TEXT NOT NULL, subject TEXT NOT NULL, state TEXT NOT NULL, reason TEXT,
        created REAL NOT NULL, touched REAL, ended REAL,
        length INTEGER, seal_at INTEGER, offset INTEGER NOT NULL, size INTEGER, sealed_order INTEGER,
        creating REAL, multipart_id TEXT, replaces TEXT,
        layout TEXT NOT NULL, meta TEXT NOT NULL, stored_object TEXT
    ) WITHOUT ROWID;
INSERT INTO "upload" VALUES('039273540ee32b0141f3af6fa771a64b','complete','anonymous','complete',NULL,1.7953859101824965477e+09,1.79538591020137953762e+09,1.7953859102489495278e+09,NULL,1000,1000,1000,1,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "300c174f504286ee704ae515e8e289b5", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}','{"key": "complete", "size": 1000, "etag": "\"f5b165224a58b791\"", "token": "300c174f504286ee704ae515e8e289b5", "checksums": {"crc64nvme": "JUR72tqb9DU="}, "content_type": null, "modified": "2026-11-22T22:18:30+00:00"}');
INSERT INTO "upload" VALUES('15177b819ca7204a9f211e4f4b7df7b1','small','anonymous','sealed',NULL,1.79538591086496663088e+09,1.79538591088766241073e+09,NULL,NULL,800,800,800,2,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "0cb98060b320da8c372de8f112aa8b26", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
INSERT INTO "upload" VALUES('1527618d8444da47f1c47ae0913d08e1','begun','anonymous','open',NULL,1.79538591055546307559e+09,1.79538591059708118441e+09,NULL,NULL,NULL,900,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "35f64771f228df1a7a1acd6139949f29", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
INSERT INTO "upload" VALUES('19e9f34b39804f808078792ea4fdc0e1','written','anonymous','open',NULL,1.7953859108380908966e+09,NULL,NULL,NULL,NULL,0,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "7614afbf97cf4c37e98757d230011a39", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
INSERT INTO "upload" VALUES('3b0aea2c6c24d6a27c04580ca1c56d36','large','anonymous','sealed',NULL,1.79538591091735625273e+09,1.79538591093506836888e+09,NULL,NULL,65936,65936,65936,3,1.79538591093495631216e+09,NULL,NULL,'{"part_bytes": 65536, "step": 0, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "b3fa39d4f7603f9c87fba7ab836544ad", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
INSERT INTO "upload" VALUES('5b568b8113868167760baa7ae194fc00','half','anonymous','open',NULL,1.79538591068719339365e+09,1.79538591070666694645e+09,NULL,NULL,NULL,163840,NULL,NULL,NULL,'df6af1d8303e61cdc4bb86c3',NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "0e54d8f0fa2a0b42bad684a53851c0a1", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
INSERT INTO "upload" VALUES('c6c9638608238fdba96162a0d6cd789c','cancelled','anonymous','cancelled',NULL,1.79538591030362486844e+09,1.79538591042284107206e+09,1.7953859105032219887e+09,NULL,NULL,700,NULL,NULL,NULL,NULL,NULL,'{"part_bytes": 65536, "step": 900, "max_part_bytes": 524288, "max_parts": 10000}','{"token": "c1e41dc7dc6dc202647644a4a864270c", "checksum": "crc64nvme", "if_none_match": false, "content_type": null, "content_encoding": null, "content_disposition": null, "cache_control": null, "user": {}}',NULL);
CREATE INDEX upload_by_state ON upload (state, ended);
CREATE INDEX upload_by_key ON upload (key, created);
COMMIT;
PRAGMA user_version = 1;
