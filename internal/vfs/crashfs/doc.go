// Package crashfs is a directory in memory that keeps what package vfs promises
// and nothing else. It is for tests.
//
//	disk := crashfs.New(seed)
//	use(disk.Dir())                   // the first process
//	disk = disk.Crash(rng)            // power fails: one of the possible disks
//	disk = disk.Kill()                // or: SIGKILL, the kernel lives on
//	use(disk.Dir())                   // the next process
//
// The operations are numbered from 0, so that a test can have each of them fail
// or be the last:
//
//	for k := 0; ; k++ {
//		disk := crashfs.New(seed)
//		disk.FailAt(k, crashfs.Stop)
//		use(disk.Dir())
//		if !disk.Tripped() {
//			break // there are fewer operations than k
//		}
//		check(disk.Crash(rng), disk.Kill())
//	}
//
// # What a power cut leaves
//
// Bytes that were there when a Sync began that returned nil are as they were,
// reserved zeros too, until something is appended over them. Of the others each
// sector, of 512 or 4096 bytes, is there, torn at any byte, or lost, whatever
// became of those around it; a lost one holds zeros, noise, or bytes of a file
// that was removed earlier. The file ends anywhere between the last byte that
// was synced, appended over since or not, and the last written one.
//
// A name that was created or removed since the directory's last Sync is as
// before or after, each on its own, and with no regard to what the file's Sync
// said. A name that changed more than once may be in any of these states.
//
// # After a failed Sync
//
// The bytes count as clean, as in Linux: they may be on disk or not, no later
// Sync of this or the next process changes that, and [FS.Evict] makes readers
// see it. What is appended over reserved zeros among them is for the next Sync.
// Names stay for the next Sync of the directory, because real file systems keep
// them in their log or shut down; [FS.ForgetNames] treats them as bytes are.
//
// # What it does not do
//
// Damage synced bytes, rename, truncate or overwrite but reserved zeros, and
// tell old blocks of the same file from new ones: [FS.Put] is for tests of
// damage.
package crashfs
