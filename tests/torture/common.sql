-- A schema as mean as we could make it, for both flavours. Fed through the server's own client.
SET NAMES utf8mb4;
SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION';
SET time_zone='+00:00';
SET foreign_key_checks=0;

CREATE DATABASE `plain` DEFAULT CHARACTER SET latin1 COLLATE latin1_swedish_ci;
CREATE DATABASE `we``ird. näme \ 'q' "d" дб` DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE DATABASE `x`;
CREATE DATABASE `x.y`;

-- names
CREATE TABLE `x`.`y.z` (a INT);
CREATE TABLE `x.y`.`z` (a INT);
CREATE TABLE `we``ird. näme \ 'q' "d" дб`.`select` (`from` INT, `a``b` INT, `c.d` INT, `e f` INT, `ü` INT, PRIMARY KEY (`a``b`));
INSERT INTO `we``ird. näme \ 'q' "d" дб`.`select` VALUES (1,2,3,4,5);
CREATE TABLE `we``ird. näme \ 'q' "d" дб`.`line
break` (`a
b` INT COMMENT 'it''s a \\ "comment"
over lines, KEY `x` (a), é') COMMENT 'table; /* comment */ `;` -- é';
CREATE TABLE `we``ird. näme \ 'q' "d" дб`.`ééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé` (`ääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääääää` INT);
CREATE TABLE `plain`.`Upper` (a INT);
CREATE TABLE `plain`.`upper` (a INT);
CREATE TABLE `plain`.`..` (a INT);

-- foreign keys: a cycle, a self reference, across schemas, to a table that is missing
CREATE TABLE `plain`.`fk_a` (id INT PRIMARY KEY, b INT, KEY (b), CONSTRAINT `fk ``a` FOREIGN KEY (b) REFERENCES `fk_b` (id) ON DELETE SET NULL ON UPDATE CASCADE) ENGINE=InnoDB;
CREATE TABLE `plain`.`fk_b` (id INT PRIMARY KEY, a INT, me INT, FOREIGN KEY (a) REFERENCES `fk_a` (id), FOREIGN KEY (me) REFERENCES `fk_b` (id)) ENGINE=InnoDB;
CREATE TABLE `plain`.`fk_far` (id INT PRIMARY KEY, w INT, FOREIGN KEY (w) REFERENCES `we``ird. näme \ 'q' "d" дб`.`select` (`a``b`)) ENGINE=InnoDB;
CREATE TABLE `plain`.`fk_gone` (id INT PRIMARY KEY, w INT, FOREIGN KEY (w) REFERENCES `nowhere` (`id`)) ENGINE=InnoDB;
INSERT INTO plain.fk_a VALUES (1,2),(2,1); INSERT INTO plain.fk_b VALUES (1,2,2),(2,1,1);
INSERT INTO plain.fk_gone VALUES (1,77);

-- kinds of columns
CREATE TABLE `plain`.`ints` (t TINYINT, tu TINYINT UNSIGNED, s SMALLINT, m MEDIUMINT, i INT, b BIGINT, bu BIGINT UNSIGNED, bo BOOL, z INT(6) ZEROFILL, id BIGINT AUTO_INCREMENT PRIMARY KEY);
INSERT INTO plain.ints VALUES (-128,255,-32768,-8388608,-2147483648,-9223372036854775808,18446744073709551615,1,42,0),
  (NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,-5),(127,0,32767,8388607,2147483647,9223372036854775807,0,0,0,77);
CREATE TABLE `plain`.`numbers` (id INT PRIMARY KEY, d DECIMAL(65,30), f FLOAT, fm FLOAT(10,3), g DOUBLE, gm DOUBLE(20,5), b1 BIT(1), b64 BIT(64));
INSERT INTO plain.numbers VALUES (1,-12345678901234567890123456789012345.123456789012345678901234567890,0.12345679,1.5,-0e0,1.25,b'1',0xFFFFFFFFFFFFFFFF),
  (2,0,16777216,-1,1e308,0,b'0',0x0A09005C0D),(3,NULL,NULL,NULL,NULL,NULL,NULL,NULL),(4,1,1.17549e-38,0.001,2.2250738585072014e-308,3,b'1',1),(5,1,3.4028235e38,9,4.9406564584124654e-324,3,b'1',0);
CREATE TABLE `plain`.`float_key` (f FLOAT PRIMARY KEY, n INT);
INSERT INTO plain.float_key VALUES (0.1,1),(16777215,2),(3.3333333,3);
CREATE TABLE `plain`.`times` (id INT PRIMARY KEY, y YEAR, d DATE, t TIME(6), dt DATETIME(6), ts TIMESTAMP(6) NULL, t0 TIME);
INSERT INTO plain.times VALUES (1,2155,'0000-00-00','-838:59:59','0000-00-00','2038-01-19 03:14:07.999999','-00:00:01'),
  (2,0,'2023-00-00','838:59:58.999999','2023-02-31 01:02:03.000001','1970-01-01 00:00:01','00:00:00'),
  (3,1901,'2023-02-31','00:00:00.000001','9999-12-31 23:59:59.999999','2023-10-29 01:30:00',NULL),(4,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE `plain`.`texts` (id INT PRIMARY KEY, l1 VARCHAR(300) CHARACTER SET latin1, u8 TEXT CHARACTER SET utf8mb4, g VARCHAR(20) CHARACTER SET gbk, sj VARCHAR(20) CHARACTER SET sjis,
  cp VARCHAR(20) CHARACTER SET cp932, u16 VARCHAR(20) CHARACTER SET utf16, u32 CHAR(10) CHARACTER SET utf32, c CHAR(10) CHARACTER SET latin1, bi BINARY(8), vb VARBINARY(300), lb LONGBLOB);
INSERT INTO plain.texts VALUES (1,0x0001020304050607080910111213141516171819202122232425262728292A5C5C6E7F80FF, '', _gbk 0xB5C45C, _sjis 0x5C835C, _cp932 0xEEF9FA5B, _utf16 0xD83DDE00, _utf32 0x0001F600, 'a ', 0x00, 0x0A0D09005C4E5C, REPEAT(0x00FF5C0A09,1000)),
  (2,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL),(3,'','\\N','','','','','','','','',''),(4,'\\N','NULL\t\n\\','a','b','c','d','e',' x',0x2020202020202020,0x20,REPEAT('é',200000));
CREATE TABLE `plain`.`members` (id INT PRIMARY KEY, e ENUM('','a','b','it''s','é',',') CHARACTER SET latin1, s SET('','x','y','é') CHARACTER SET latin1);
INSERT IGNORE INTO plain.members VALUES (1,'nonsense','x'),(2,'','') ,(3,4,15),(4,'é','é'),(5,NULL,NULL),(6,',','x,y'),(7,1,1);
CREATE TABLE `plain`.`shapes` (id INT PRIMARY KEY, g GEOMETRY, p POINT NOT NULL, SPATIAL KEY (p));
INSERT INTO plain.shapes VALUES (1,ST_GeomFromText('POLYGON((0 0,0 1,1 1,0 0))'),ST_GeomFromText('POINT(1 2)')),(2,NULL,ST_GeomFromText('POINT(-1e100 2.5)'));
CREATE TABLE `plain`.`docs` (id INT PRIMARY KEY, j JSON);
INSERT INTO plain.docs VALUES (1,'{"a": 1, "ü": [null, true, 1.5, "\\n\\u0000\\t"], "": {}}'),(2,'[]'),(3,'"\\\\"'),(4,NULL),(5,'1e-5');
CREATE TABLE `plain`.`made` (id INT PRIMARY KEY AUTO_INCREMENT, a INT, v INT GENERATED ALWAYS AS (a*2) VIRTUAL, s VARCHAR(30) GENERATED ALWAYS AS (CONCAT('x',a)) STORED,
  f FLOAT GENERATED ALWAYS AS (a/3) STORED, d INT DEFAULT (7+1), KEY (v), CHECK (a <> 13));
INSERT INTO plain.made (a) VALUES (1),(2),(NULL); ALTER TABLE plain.made AUTO_INCREMENT=1000;
CREATE TABLE `plain`.`hidden` (id INT PRIMARY KEY, a INT INVISIBLE, b INT INVISIBLE DEFAULT 9, g INT AS (a+1) INVISIBLE);
INSERT INTO plain.hidden (id,a,b) VALUES (1,2,3),(2,NULL,NULL);
CREATE TABLE `plain`.`only_made` (v INT GENERATED ALWAYS AS (1+1) STORED);
INSERT INTO plain.only_made VALUES (),(),();

-- keys, options, partitions, engines
CREATE TABLE `plain`.`keys` (id BIGINT UNSIGNED NOT NULL, a VARCHAR(100), b VARCHAR(100) CHARACTER SET utf8mb4, c INT, PRIMARY KEY (id,c), UNIQUE KEY `u ``1` (a(10)), KEY (b DESC), FULLTEXT KEY `ft` (b),
  KEY `c` (c) COMMENT 'key, comment (') ENGINE=InnoDB ROW_FORMAT=DYNAMIC COMMENT='keys';
INSERT INTO plain.`keys` VALUES (18446744073709551615,'a','b',1),(0,NULL,NULL,2),(9223372036854775808,'z','',3);
CREATE TABLE `plain`.`parts` (id INT NOT NULL, d DATE NOT NULL, PRIMARY KEY (id,d)) PARTITION BY RANGE (YEAR(d)) SUBPARTITION BY HASH (id) SUBPARTITIONS 2
  (PARTITION p0 VALUES LESS THAN (2000) COMMENT = 'old', PARTITION `p``1` VALUES LESS THAN (2020), PARTITION pm VALUES LESS THAN MAXVALUE);
INSERT INTO plain.parts VALUES (1,'1999-01-01'),(2,'2010-01-01'),(-3,'2030-01-01');
CREATE TABLE `plain`.`isam` (id INT PRIMARY KEY, a VARCHAR(20)) ENGINE=MyISAM;
INSERT INTO plain.isam VALUES (1,'x'),(2,NULL);
CREATE TABLE `plain`.`isam2` (id INT PRIMARY KEY, a VARCHAR(20)) ENGINE=MyISAM;
INSERT INTO plain.isam2 VALUES (3,'y');
CREATE TABLE `plain`.`a_merge` (id INT PRIMARY KEY, a VARCHAR(20)) ENGINE=MRG_MyISAM UNION=(`plain`.`isam`,`plain`.`isam2`) INSERT_METHOD=LAST;
CREATE TABLE `plain`.`mem` (id INT PRIMARY KEY, a VARCHAR(20)) ENGINE=MEMORY;
INSERT INTO plain.mem VALUES (1,'x');
CREATE TABLE `plain`.`csv` (id INT NOT NULL, a VARCHAR(20) NOT NULL) ENGINE=CSV;
INSERT INTO plain.csv VALUES (1,'x,"y"');

CREATE TABLE `plain`.`arc` (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(20)) ENGINE=ARCHIVE;
INSERT INTO plain.arc VALUES (1,'x'),(2,'y'),(5,'z');
CREATE TABLE `plain`.`bh` (id INT PRIMARY KEY) ENGINE=BLACKHOLE;

-- programs
CREATE VIEW `plain`.`v_base` AS SELECT id, a FROM plain.isam WITH LOCAL CHECK OPTION;
CREATE ALGORITHM=MERGE SQL SECURITY INVOKER VIEW `plain`.`a_view on view` AS SELECT id AS `i d`, a AS `ä``` FROM plain.v_base WHERE a <> 'é' WITH CASCADED CHECK OPTION;
CREATE DEFINER=`nobody`@`no.where` VIEW `x`.`v_far` AS SELECT `a``b` AS q FROM `we``ird. näme \ 'q' "d" дб`.`select`;
USE plain;
DELIMITER ;;
CREATE FUNCTION `f``1`(x INT) RETURNS INT DETERMINISTIC COMMENT 'fün' RETURN x+1;;
CREATE FUNCTION `f_no_char`(x VARCHAR(10) CHARACTER SET utf8mb4) RETURNS TEXT CHARACTER SET latin1 RETURN CONCAT('é',x);;
SET sql_mode='ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES';;
CREATE PROCEDURE "p ansi"(OUT "o""ut" TEXT) COMMENT 'back\slash' BEGIN
  -- a comment; with `quote
  SELECT 'a\' || "id" FROM "isam" INTO "o""ut";
END;;
CREATE TRIGGER "t ansi" BEFORE INSERT ON "isam" FOR EACH ROW SET NEW."a" = 'back\' || NEW."a";;
SET sql_mode='';;
CREATE DEFINER=`nobody`@`no.where` PROCEDURE `missing_table`() SQL SECURITY INVOKER MODIFIES SQL DATA SELECT * FROM nowhere.nothing;;
CREATE TRIGGER `z first` BEFORE INSERT ON `fk_a` FOR EACH ROW SET NEW.b = NEW.b;;
CREATE TRIGGER `a second` BEFORE INSERT ON `fk_a` FOR EACH ROW FOLLOWS `z first` SET NEW.b = NEW.b + 0;;
CREATE TRIGGER `zero` BEFORE INSERT ON `fk_a` FOR EACH ROW PRECEDES `z first` SET @x = 'é';;
DELIMITER ;
DELIMITER ;;
CREATE TRIGGER `x.t``` AFTER DELETE ON `keys` FOR EACH ROW BEGIN SET @x = 1; END;;
DELIMITER ;
SET time_zone='+03:00';
DELIMITER ;;
CREATE EVENT `e ``v` ON SCHEDULE EVERY 3 MONTH STARTS '2031-01-01 00:00:00' ENDS '2032-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'ëv' DO BEGIN SET @é = 1; END;;
SET time_zone='+00:00';;
SET sql_mode='ANSI_QUOTES';;
CREATE EVENT "ev2" ON SCHEDULE AT '2037-05-05 05:05:05' DO SELECT "id" FROM "isam";;
SET sql_mode='';;
DELIMITER ;
SET timestamp=1000000000;
CREATE EVENT `long over` ON SCHEDULE AT '2010-01-01 00:00:00' DO SELECT 1;
CREATE EVENT `over but kept` ON SCHEDULE AT '2010-01-01 00:00:00' ON COMPLETION PRESERVE DO SELECT 1;
SET timestamp=DEFAULT;
-- programs of another character set, with a comment and a name that are not ASCII
SET NAMES latin1;
USE plain;
DELIMITER ;;
CREATE PROCEDURE `lat�in`() COMMENT 'caf�' SELECT 'na�ve';;
CREATE EVENT `lat�` ON SCHEDULE EVERY 1 YEAR STARTS '2035-01-01 00:00:00' COMMENT 'caf�' DO SELECT 'na�ve';;
CREATE TRIGGER `tr�` BEFORE UPDATE ON isam FOR EACH ROW SET NEW.a='�';;
DELIMITER ;
CREATE VIEW v_lat AS SELECT 'na�ve' AS `�t�`, a FROM isam WHERE a <> '�';
SET NAMES utf8mb4;
