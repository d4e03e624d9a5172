package s3sink

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/internal/deflate"
)

// Defaults of [Config].
const (
	DefaultMaxObjectBytes    = 100_000_000
	DefaultMaxObjectAge      = 5 * time.Minute
	DefaultMaxEventBytes     = 1 << 20
	DefaultMaxMemory         = 128 << 20 // the largest default: see Config.MaxMemory
	DefaultMaxSpoolBytes     = 10 << 30
	DefaultCommitInterval    = time.Second
	DefaultMaxOpenPartitions = 10_000
	DefaultUploadConcurrency = 4
	DefaultMinUploadRate     = 64 << 10
	DefaultRetryParked       = 5 * time.Minute
	DefaultCompressionLevel  = 5
)

// Config is the configuration of a sink. Bucket and SourceID are required. The
// zero value of every other field selects its default. New copies the Config.
type Config struct {
	// Bucket is the name of a general purpose bucket, optionally followed by a
	// key prefix: "acme-events" or "acme-events/path/prefix". URIs and ARNs are
	// rejected. So are the names of directory buckets, table buckets and access
	// points. Required.
	Bucket string

	// Prefix is the first part of every key, after the path in Bucket. Slashes
	// at its ends are ignored. Defaults to none.
	Prefix string

	// SourceID is the source id of events that [Sink.Track] takes. It is a folder
	// of the key, escaped as [Sink.Source] says. The maximum is 256 bytes.
	// Required.
	SourceID string

	// KeyFormat is the template of keys below the prefix. Objects that are
	// already in a SpoolDir keep their keys. Defaults to [SegmentKeys].
	KeyFormat KeyFormat

	// ReceivedAt returns the time at which an event was received. It is for
	// services that forward events which other services have received. The time
	// decides the received-day, and the receivedAt of an [Event].
	//
	// Its argument is the argument of Track, or the line of TrackLine as a
	// []byte, which it must neither keep nor change. It is called from many
	// goroutines. The zero time stands for now. A year outside 1970 to 9999 is
	// an [*EventError]. With ReceivedAt, events of a source are in order within
	// each day, but not across days. Defaults to the time of the call, for every
	// event.
	ReceivedAt func(event any) time.Time

	// Disabled makes a sink that uploads nothing. Events are checked, counted as
	// Accepted and Dropped, and discarded. No hook is called, and Flush and Close
	// return nil. New still checks this Config, and [Sink.Validate] still checks
	// the bucket, so both can be tested before the sink is enabled. It
	// corresponds to Segment's "enabled": false. Defaults to false.
	Disabled bool

	// Region is the region of the bucket. If it is empty and Endpoint is not set,
	// the first upload asks S3 for it. The environment variable AWS_REGION is
	// ignored, because it names the region where the program runs.
	Region string

	// Endpoint is the URL of an S3-compatible store. Defaults to the endpoint of
	// the AWS configuration, if it has one, and otherwise to AWS.
	Endpoint string

	// UsePathStyle puts the bucket into the path of the URL instead of the host
	// name. Many S3-compatible stores need it. Defaults to false.
	UsePathStyle bool

	// STSRegion is the region in which roles are assumed. Defaults to the
	// bucket's region.
	STSRegion string

	// STSEndpoint is the URL of an STS-compatible service. Defaults to the
	// endpoint of the AWS configuration, if it has one, and otherwise to AWS.
	STSEndpoint string

	// AllowPlaintext allows http:// endpoints on other hosts than this one.
	// Events and session tokens are then sent unencrypted. Defaults to false:
	// only loopback addresses may use http.
	AllowPlaintext bool

	// Credentials are the identity with which the sink writes. Defaults to
	// [Ambient].
	Credentials Credentials

	// Encryption is the encryption of objects at rest. Defaults to
	// [BucketDefault].
	Encryption Encryption

	// ACL is a canned ACL, such as "bucket-owner-full-control". It needs the
	// permission s3:PutObjectAcl. Most buckets accept no other ACL than that one.
	// Defaults to none.
	ACL string

	// StorageClass is the storage class of objects, such as "STANDARD_IA".
	// Defaults to the default of S3, which is STANDARD.
	StorageClass string

	// Metadata is added to the metadata that the sink sets on every object. Names
	// are lower case, without x-amz-meta-, and do not begin with s3sink-. The
	// maximum is 1,664 bytes of names and values. Defaults to none.
	Metadata map[string]string

	// Tags are set on every object. They need the permission
	// s3:PutObjectTagging. The maximum is 10. Defaults to none.
	Tags map[string]string

	// ContentType is the Content-Type of every object. For the headers of
	// Segment's older destination, set [SegmentContentType] and
	// [SegmentContentEncoding]. Defaults to [DefaultContentType].
	ContentType string

	// ContentEncoding is the Content-Encoding of every object. Defaults to none.
	ContentEncoding string

	// ExpectedBucketOwner is the id of the account that must own the bucket. If
	// another account has created a bucket with that name, S3 refuses the
	// uploads. Defaults to none: the owner is not checked.
	ExpectedBucketOwner string

	// CreateOnly makes uploads send If-None-Match, so that no upload replaces an
	// existing object. Defaults to [CreateOnlyAuto].
	CreateOnly CreateOnly

	// SignPayload signs the SHA-256 of each object, so that the store refuses an
	// object that was damaged in transit. Each upload also has a CRC-32, but some
	// stores ignore that header and would keep a damaged object. Over http every
	// object is signed. Defaults to [SignPayloadAuto].
	SignPayload SignPayload

	// MaxObjectBytes closes an object before it exceeds this many compressed
	// bytes. The minimum holds one event of MaxEventBytes. The maximum is
	// [DefaultMaxObjectBytes], because Segment's files "won't exceed 100 MB".
	// Defaults to [DefaultMaxObjectBytes].
	MaxObjectBytes int64

	// MaxObjectEvents closes an object at this many events. Defaults to 0, which
	// means no limit.
	MaxObjectEvents int64

	// MaxObjectAge closes an object this long after its first event, however
	// small it is. It bounds how stale the newest object in the bucket can be.
	// The minimum is 100ms and the maximum is 24h. Defaults to
	// [DefaultMaxObjectAge].
	MaxObjectAge time.Duration

	// MaxEventBytes is the maximum length of a line in bytes, without its
	// newline. Longer events are an [*EventError]. Defaults to
	// [DefaultMaxEventBytes].
	MaxEventBytes int

	// SpoolDir is a directory that belongs to this sink. New creates it with mode
	// 0700 if it does not exist. Pending events are kept there on disk,
	// compressed, and the next process delivers the events that this process
	// leaves there; see [Durability]. Events on disk are not encrypted: use an
	// encrypted volume if that matters. SpoolDir must not be a symlink. Defaults
	// to none: pending events are kept in memory.
	//
	// On systems with owners and modes, the location of the spool is
	//
	//   - SpoolDir itself, if this process's user owns it and no other user may
	//     write to it; others may read it, because the files have mode 0600;
	//   - SpoolDir itself, if it already holds a spool of this user: if others
	//     have been given access, as kubelet does for fsGroup, New sets the modes
	//     back to 0700 and 0600 and logs a warning;
	//   - otherwise the subdirectory "s3sink-spool", which New creates with mode
	//     0700 and uses from then on, even if the mode of SpoolDir changes. This
	//     applies to an emptyDir, to a volume with fsGroup, and to /tmp.
	//
	// A spool of another user is a [*SpoolError] that says how to deliver its
	// events. docs/kubernetes.md has an example of each case.
	//
	// One sink at a time can use the spool. New waits for another sink until ctx
	// ends, and then returns [ErrSpoolLocked]. After one second it logs a
	// warning.
	SpoolDir string

	// Durability is the promise about an event after Track has returned nil, with
	// a SpoolDir. Defaults to [SyncInterval].
	Durability Durability

	// CommitInterval is the maximum time between accepting an event and starting
	// the fsync that includes it, with [SyncInterval]. The minimum is 10ms and the
	// maximum is 1h. Defaults to [DefaultCommitInterval].
	CommitInterval time.Duration

	// MaxSpoolBytes bounds the size of the spool's files in bytes. Track returns
	// [ErrBufferFull] when the spool is larger, or when the volume of SpoolDir is
	// nearly full. New logs a warning if the volume has less room than
	// MaxSpoolBytes. Copies of damaged files are not counted; they take at most a
	// tenth of MaxSpoolBytes. The minimum is 1 MiB. Defaults to
	// [DefaultMaxSpoolBytes].
	MaxSpoolBytes int64

	// AllowNetworkSpool allows a SpoolDir on a network file system, whose locks
	// and fsyncs are less reliable than on a local disk. Defaults to false.
	AllowNetworkSpool bool

	// MaxMemory bounds the bytes of pending events in memory, over all sources:
	// raw lines, compressed frames, and the records of blocks and objects.
	//
	// MaxMemory does not include the compressors. There is one for each core, and
	// each needs about 3 MiB while it runs, or three times the largest event. It
	// does not include the records of objects that previous runs have left in
	// SpoolDir either: up to 3 KB for each object until it is delivered, 253 MB
	// for a hundred thousand objects.
	//
	// When memory runs short without a SpoolDir, the sink closes the largest
	// objects early, and no object can be larger than MaxMemory. With a SpoolDir
	// it writes their events to disk, and the objects stay open.
	//
	// The minimum is 1 MiB, and 4 events of MaxEventBytes. Defaults to
	// [DefaultMaxMemory], or to 64 MiB with a SpoolDir. A memory limit of the
	// process lowers the default to a quarter of that limit, but not below the
	// minimum. The memory limit is the smallest of GOMEMLIMIT and, on Linux, the
	// limits of the process's cgroup and of the parents of that cgroup. New logs
	// the default at Info if a limit lowered it, and otherwise at Debug.
	MaxMemory int64

	// MaxOpenPartitions bounds the number of open partitions. A partition is a
	// source and a received-day, and uses at least 5.5 KiB of MaxMemory while it
	// is open. Beyond the bound, the partition that was opened first is closed.
	// Defaults to [DefaultMaxOpenPartitions].
	MaxOpenPartitions int

	// CompressionLevel is the gzip level, from 1 (fast) to 9 (small). Defaults to
	// [DefaultCompressionLevel].
	CompressionLevel int

	// UploadConcurrency is the maximum number of parallel uploads. It is lowered
	// temporarily after failures. While a caller waits for delivery or for room,
	// attempts without progress are not counted, and at most UploadConcurrency
	// attempts run in addition to them. The maximum is 1,000. Defaults to
	// [DefaultUploadConcurrency].
	UploadConcurrency int

	// MinUploadRate is the slowest acceptable upload, in bytes per second. It sets
	// the deadline of an attempt: 30 seconds plus the time for the object's bytes
	// at this rate. After the deadline the attempt is cancelled and retried.
	// Defaults to [DefaultMinUploadRate].
	MinUploadRate int64

	// RetryParked is the interval at which one or two parked uploads are tried.
	// Uploads are parked while the bucket refuses them for a reason that an
	// operator must fix, such as a missing permission. The minimum is 1s and the
	// maximum is 24h. Defaults to [DefaultRetryParked].
	RetryParked time.Duration

	// Logger gets the messages of the sink for operators. They hold no event
	// content and no secrets. The Logger also gets the log of the AWS SDK at
	// Debug, unless Config.AWS has a Logger. Defaults to slog.Default(), from Warn
	// up; slog.DiscardHandler silences it.
	Logger *slog.Logger

	// Hooks are functions that the sink calls when the state of an object changes.
	// Defaults to none.
	Hooks Hooks

	// HTTPClient is the client for requests to S3 and STS. Its redirect policy is
	// not used: redirects are not followed. A panic of its Transport fails the
	// request; a panic on a goroutine that the Transport has started ends the
	// process. Defaults to a new client with the settings of the AWS SDK.
	HTTPClient *http.Client

	// AWS replaces the configuration that the AWS SDK loads from the environment
	// and the shared files. Its Region is not used. Defaults to nil.
	AWS *aws.Config
}

// CreateOnly selects whether uploads send If-None-Match: *.
type CreateOnly int

// Settings of [Config].CreateOnly.
const (
	CreateOnlyAuto CreateOnly = iota // on at AWS endpoints, off elsewhere
	CreateOnlyOn
	CreateOnlyOff
)

// SignPayload selects whether uploads over https sign the SHA-256 of the object.
type SignPayload int

// Settings of [Config].SignPayload.
const (
	SignPayloadAuto SignPayload = iota // off at AWS endpoints, on elsewhere
	SignPayloadOn
	SignPayloadOff
)

// maxSourceID is the maximum length of a source id in bytes. It is longer than
// the ids in use, and leaves room in a key.
const maxSourceID = 256

const (
	minObjectAge = 100 * time.Millisecond
	minMemory    = 1 << 20
)

func (c Config) withDefaults() Config {
	c.KeyFormat = cmp.Or(c.KeyFormat, SegmentKeys)
	c.ContentType = cmp.Or(c.ContentType, DefaultContentType)
	c.MaxObjectBytes = cmp.Or(c.MaxObjectBytes, DefaultMaxObjectBytes)
	c.MaxObjectAge = cmp.Or(c.MaxObjectAge, DefaultMaxObjectAge)
	c.MaxEventBytes = cmp.Or(c.MaxEventBytes, DefaultMaxEventBytes)
	c.MaxMemory = cmp.Or(c.MaxMemory, c.largestDefaultMemory())
	c.MaxSpoolBytes = cmp.Or(c.MaxSpoolBytes, DefaultMaxSpoolBytes)
	c.CommitInterval = cmp.Or(c.CommitInterval, DefaultCommitInterval)
	c.MaxOpenPartitions = cmp.Or(c.MaxOpenPartitions, DefaultMaxOpenPartitions)
	c.CompressionLevel = cmp.Or(c.CompressionLevel, DefaultCompressionLevel)
	c.UploadConcurrency = cmp.Or(c.UploadConcurrency, DefaultUploadConcurrency)
	c.MinUploadRate = cmp.Or(c.MinUploadRate, DefaultMinUploadRate)
	c.RetryParked = cmp.Or(c.RetryParked, DefaultRetryParked)
	if c.Credentials == nil {
		c.Credentials = Ambient()
	}
	if c.Logger == nil {
		c.Logger = slog.New(warnings{slog.Default().Handler()})
	}
	c.Logger = slog.New(guardedHandler{c.Logger.Handler()})
	return c
}

// Check reports every setting that New would refuse, joined, each as a
// [*ConfigError]. It makes no request and does not look at SpoolDir, so it suits the
// tests of a program that builds a Config. [Sink.Validate] shows whether the sink
// can write. New also checks the endpoints that the AWS configuration names.
func (c Config) Check() error {
	c = c.withDefaults()
	return c.validate()
}

// validate returns every problem of the Config, joined.
func (c *Config) validate() error {
	var errs configErrors
	c.checkPlace(&errs)
	c.checkHeaders(&errs)
	c.checkLimits(&errs)
	c.Credentials.check(&errs)
	if len(errs) == 0 {
		c.checkSessionPolicy(&errs)
	}
	return errors.Join(errs...)
}

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

func (c *Config) checkPlace(errs *configErrors) {
	name, path := splitBucket(c.Bucket, c.Prefix)
	c.checkBucket(errs, name)
	for _, part := range strings.Split(path, "/") {
		if part == "." || part == ".." || !utf8.ValidString(part) || strings.IndexFunc(part, isControl) >= 0 {
			errs.add("Prefix", path, `folders without "." and "..", in valid UTF-8 without control characters`)
			break
		}
	}
	if err := checkSourceID("SourceID", c.SourceID); err != nil {
		*errs = append(*errs, err)
	}
	template, err := c.KeyFormat.compile()
	if err != nil {
		errs.add("KeyFormat", string(c.KeyFormat), err.Error())
	} else if n := c.longestKey(template, c.SourceID); n > maxKeyBytes {
		errs.add("KeyFormat", string(c.KeyFormat), fmt.Sprintf("keys of at most %d bytes with the prefix and the source id, not up to %d", maxKeyBytes, n))
	}
	checkRegion(errs, "Region", c.Region)
	checkRegion(errs, "STSRegion", c.STSRegion)
	c.checkEndpoint(errs, "Endpoint", c.Endpoint)
	c.checkEndpoint(errs, "STSEndpoint", c.STSEndpoint)
	if c.CreateOnly < CreateOnlyAuto || c.CreateOnly > CreateOnlyOff {
		errs.add("CreateOnly", fmt.Sprint(int(c.CreateOnly)), "CreateOnlyAuto, CreateOnlyOn or CreateOnlyOff")
	}
	if c.SignPayload < SignPayloadAuto || c.SignPayload > SignPayloadOff {
		errs.add("SignPayload", fmt.Sprint(int(c.SignPayload)), "SignPayloadAuto, SignPayloadOn or SignPayloadOff")
	}
}

// maxSessionPolicy is the limit of STS, in characters.
const maxSessionPolicy = 2048

func (c *Config) checkSessionPolicy(errs *configErrors) {
	r, ok := c.Credentials.(role)
	if !ok || r.unrestricted {
		return
	}
	if n := utf8.RuneCountInString(c.policyFacts().SessionPolicy().Compact()); n > maxSessionPolicy {
		_, prefix := c.place()
		errs.add("Prefix", prefix, fmt.Sprintf("one that fits a session policy of %d characters, not %d; or WithoutSessionPolicy", maxSessionPolicy, n))
	}
}

// place returns the name of the bucket and the prefix of every key, which ends
// with a slash or is empty.
func (c *Config) place() (bucket, prefix string) {
	bucket, path := splitBucket(c.Bucket, c.Prefix)
	if path == "" {
		return bucket, ""
	}
	return bucket, path + "/"
}

// partition returns the AWS partition of the bucket, as far as the Config shows it.
func (c *Config) partition() string {
	arn := c.Encryption.key
	if r, ok := c.Credentials.(role); ok {
		arn = r.arn
	}
	if parts := strings.Split(arn, ":"); len(parts) > 1 && hintRegions[parts[1]] != "" {
		return parts[1]
	}
	switch {
	case strings.HasPrefix(c.Region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(c.Region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// hintRegions are the regions that are first asked for the region of a bucket, by
// partition.
var hintRegions = map[string]string{"aws": "us-east-1", "aws-cn": "cn-north-1", "aws-us-gov": "us-gov-west-1"}

func (c *Config) longestKey(t keyTemplate, source string) int {
	_, prefix := c.place()
	return len(prefix) + t.longest(escapeSource(source))
}

func checkSourceID(field, id string) error {
	if id != "" && len(id) <= maxSourceID {
		return nil
	}
	var errs configErrors
	errs.add(field, id, fmt.Sprintf("1 to %d bytes", maxSourceID))
	return errs[0]
}

func checkRegion(errs *configErrors, field, region string) {
	if region != "" && !regionName.MatchString(region) {
		errs.add(field, region, `a region such as "eu-west-1"`)
	}
}

func (c *Config) checkEndpoint(errs *configErrors, field, text string) {
	if text == "" {
		return
	}
	u, err := url.Parse(text)
	switch {
	case strings.ContainsAny(text, "@?#"):
		errs.add(field, redacted, "a URL without user, password or query; access keys belong in Config.Credentials")
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		errs.add(field, text, "a URL such as https://s3.example.com:9000")
	case u.Scheme == "http" && !c.AllowPlaintext && !loopback(u.Hostname()):
		errs.add(field, text, "https, or a loopback address, or AllowPlaintext")
	}
}

func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func (c *Config) checkLimits(errs *configErrors) {
	number := func(field string, value, low, high int64) {
		if value < low || value > high {
			errs.add(field, fmt.Sprint(value), fmt.Sprintf("%d to %d", low, high))
		}
	}
	duration := func(field string, value, low, high time.Duration) {
		if value < low || value > high {
			errs.add(field, value.String(), fmt.Sprintf("%v to %v", low, high))
		}
	}
	number("MaxEventBytes", int64(c.MaxEventBytes), 2, deflate.MaxRaw/4)
	line := int64(c.MaxEventBytes) + 1
	number("MaxObjectBytes", c.MaxObjectBytes, deflate.Bound(line)+int64(deflate.Overhead), DefaultMaxObjectBytes)
	number("MaxObjectEvents", c.MaxObjectEvents, 0, 1<<62)
	duration("MaxObjectAge", c.MaxObjectAge, minObjectAge, 24*time.Hour)
	number("MaxMemory", c.MaxMemory, c.leastMemory(), 1<<50)
	number("MaxSpoolBytes", c.MaxSpoolBytes, 1<<20, 1<<50)
	duration("CommitInterval", c.CommitInterval, 10*time.Millisecond, time.Hour)
	if c.Durability != SyncInterval && c.Durability != SyncEach {
		errs.add("Durability", fmt.Sprint(int(c.Durability)), "SyncInterval or SyncEach")
	}
	if c.Durability != SyncInterval && c.SpoolDir == "" {
		errs.add("SpoolDir", "", "a directory: without one no event survives the process")
	}
	number("MaxOpenPartitions", int64(c.MaxOpenPartitions), 1, 10_000_000)
	number("CompressionLevel", int64(c.CompressionLevel), 1, 9)
	number("UploadConcurrency", int64(c.UploadConcurrency), 1, 1000)
	number("MinUploadRate", c.MinUploadRate, 1, 1<<50)
	duration("RetryParked", c.RetryParked, time.Second, 24*time.Hour)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
