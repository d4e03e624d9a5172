package vfs

import (
	"math"
	"os"
	"strconv"
	"syscall"
)

// syncFile uses fdatasync, which writes the bytes and the length, but not, as fsync
// does, the timestamps. A read after a crash needs only the first two.
func syncFile(f *os.File) error {
	return control(f, syscall.Fdatasync)
}

func fileSystem(f *os.File) (FileSystem, error) {
	var st syscall.Statfs_t
	if err := control(f, func(fd int) error { return syscall.Fstatfs(fd, &st) }); err != nil {
		return FileSystem{}, err
	}
	return byMagic(uint32(st.Type)), nil // the Go type and its sign depend on the architecture
}

// freeBytes returns the number of bytes that a user other than root can write.
func freeBytes(f *os.File) (int64, error) {
	var st syscall.Statfs_t
	if err := control(f, func(fd int) error { return syscall.Fstatfs(fd, &st) }); err != nil {
		return 0, err
	}
	return int64(min(st.Bavail, math.MaxInt64/uint64(max(1, st.Frsize)))) * int64(st.Frsize), nil
}

// byMagic knows the numbers of linux/magic.h, and of some drivers outside of the
// kernel tree. It treats an unknown file system as a local disk.
func byMagic(magic uint32) FileSystem {
	if known, ok := magics[magic]; ok {
		return known
	}
	return FileSystem{Name: "0x" + strconv.FormatUint(uint64(magic), 16)}
}

var magics = map[uint32]FileSystem{
	0xef53:     {Name: "ext4"},
	0x58465342: {Name: "xfs"},
	0x9123683e: {Name: "btrfs"},
	0xf2f52010: {Name: "f2fs"},
	0x2fc12fc1: {Name: "zfs"},
	0xca451a4e: {Name: "bcachefs"},

	0x01021994: {Name: "tmpfs", Volatile: true},
	0x858458f6: {Name: "ramfs", Volatile: true},
	0x794c7630: {Name: "overlay", Volatile: true},
	0x65735546: {Name: "fuse", Volatile: true}, // virtiofs too
	0x01021997: {Name: "9p", Volatile: true},   // a virtual machine's or sandbox's window to its host
	0x786f4256: {Name: "vboxsf", Volatile: true},
	0xbacbacbc: {Name: "vmhgfs", Volatile: true},

	0x6969:     {Name: "nfs", Network: true},
	0x517b:     {Name: "smb", Network: true},
	0xfe534d42: {Name: "smb2", Network: true},
	0xff534d42: {Name: "cifs", Network: true},
	0x564c:     {Name: "ncp", Network: true},
	0x5346414f: {Name: "afs", Network: true},
	0x6b414653: {Name: "afs", Network: true},
	0x73757245: {Name: "coda", Network: true},
	0x00c36400: {Name: "ceph", Network: true},
	0x0bd00bd0: {Name: "lustre", Network: true},
	0x47504653: {Name: "gpfs", Network: true},
	0x19830326: {Name: "beegfs", Network: true},
	0x7461636f: {Name: "ocfs2", Network: true},
	0x01161970: {Name: "gfs2", Network: true},
}

// pidNamespace returns the name of this process's PID namespace, or an empty
// string if /proc is not mounted.
func pidNamespace() string {
	name, _ := os.Readlink("/proc/self/ns/pid")
	return name
}
