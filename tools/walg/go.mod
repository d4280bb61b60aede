module diting.invalid/tools/walg

go 1.21

require github.com/wal-g/wal-g v0.2.19
