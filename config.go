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
	DefaultMaxMemory         = 128 << 20 // at most: see Config.MaxMemory
	DefaultMaxSpoolBytes     = 10 << 30
	DefaultCommitInterval    = time.Second
	DefaultMaxOpenPartitions = 10_000
	DefaultUploadConcurrency = 4
	DefaultMinUploadRate     = 64 << 10
	DefaultRetryParked       = 5 * time.Minute
	DefaultCompressionLevel  = 5
)

// Config says where events go and how. Bucket and SourceID are required; the
// zero value of every other field is its default. New copies it.
type Config struct {
	// Bucket is the name of the bucket, optionally followed by a key prefix:
	// "acme-events" or "acme-events/path/prefix". It is a name, not a URI and
	// not an ARN, of a general purpose bucket: New refuses the names of directory
	// buckets, table buckets and access points of other kinds.
	Bucket string

	// Prefix comes before every key, behind the path in Bucket. Slashes at
	// its ends do not matter.
	Prefix string

	// SourceID says whose events they are; it is a folder of the key. Any
	// text of up to 256 bytes will do: [Sink.Source] says how it is escaped.
	SourceID string

	// KeyFormat is the layout of keys below the prefix. What a SpoolDir holds
	// keeps its keys. Defaults to [SegmentKeys].
	KeyFormat KeyFormat

	// ReceivedAt says when an event was received, for services that pass on
	// what others have received: it decides the received-day, and an [Event]'s
	// receivedAt. It gets what Track got, or TrackLine's line as a []byte, which
	// it must neither keep nor change; it is called from many goroutines. The
	// zero time means now. Events of a source are then in order within each
	// day, and not across days. Defaults to now, for every event.
	ReceivedAt func(event any) time.Time

	// Disabled makes a sink that sends nothing: events are checked, counted as
	// Accepted and Dropped, and gone; nothing is held and no hook is called.
	// Flush and Close return nil. [Sink.Validate] works as ever, and so does the
	// check of this Config: both are for before it is enabled. It is Segment's
	// "enabled": false.
	Disabled bool

	// Region is the bucket's. If it is empty, S3 is asked for it by the first
	// upload, unless Endpoint is set. AWS_REGION is not read: it is where the
	// program runs.
	Region string

	// Endpoint is the URL of a store that is not AWS. Defaults to AWS, or to
	// what the AWS configuration names.
	Endpoint string

	// UsePathStyle puts the bucket into the path instead of the host name,
	// as many stores that are not AWS need it.
	UsePathStyle bool

	// STSRegion is where roles are assumed. Defaults to the bucket's region.
	STSRegion string

	// STSEndpoint is the URL of an STS that is not AWS's.
	STSEndpoint string

	// AllowPlaintext allows endpoints with http:// that are not on this host.
	// Events, and the token of a session, then travel in the clear.
	AllowPlaintext bool

	// Credentials say as whom the sink writes. Defaults to [Ambient].
	Credentials Credentials

	// Encryption is how objects are encrypted at rest. Defaults to
	// [BucketDefault].
	Encryption Encryption

	// ACL is a canned ACL, such as "bucket-owner-full-control". It needs
	// s3:PutObjectAcl, and most buckets take no other one. Defaults to none.
	ACL string

	// StorageClass is where S3 keeps objects, such as "STANDARD_IA". Defaults
	// to the bucket's, which is STANDARD.
	StorageClass string

	// Metadata is added to the metadata by which objects describe themselves.
	// Its names are lower case, without x-amz-meta-.
	Metadata map[string]string

	// Tags are set on every object, at most 10. They need
	// s3:PutObjectTagging.
	Tags map[string]string

	// ContentType defaults to [DefaultContentType]. For the headers of
	// Segment's older destination set [SegmentContentType] and
	// [SegmentContentEncoding].
	ContentType string

	// ContentEncoding defaults to none.
	ContentEncoding string

	// ExpectedBucketOwner is the account id that must own the bucket: S3
	// refuses uploads to a bucket that somebody else made under its name.
	ExpectedBucketOwner string

	// CreateOnly sends If-None-Match, so that no upload can replace an
	// object, its own included. Defaults to [CreateOnlyAuto].
	CreateOnly CreateOnly

	// SignPayload signs the SHA-256 of each object, so that the store refuses
	// one that was damaged on its way. Each object has a CRC-32 besides; but
	// stores that do not know that header keep damaged objects. Over http every
	// object is signed. Defaults to [SignPayloadAuto].
	SignPayload SignPayload

	// MaxObjectBytes closes an object before it gets longer than this many
	// compressed bytes. It must hold one event of MaxEventBytes. Defaults to
	// [DefaultMaxObjectBytes], which is also the most: Segment's files
	// "won't exceed 100 MB".
	MaxObjectBytes int64

	// MaxObjectEvents closes an object at this many events. 0 is no limit.
	MaxObjectEvents int64

	// MaxObjectAge closes an object this long after its first event, however
	// small it is. It bounds how stale the newest object in the bucket can
	// be. Defaults to [DefaultMaxObjectAge]; the minimum is 100ms.
	MaxObjectAge time.Duration

	// MaxEventBytes is the length of the longest line, without its newline.
	// Defaults to [DefaultMaxEventBytes].
	MaxEventBytes int

	// SpoolDir is a directory of this sink's own, made with mode 0700 if it is
	// missing. With it events wait on disk, compressed, and the next process
	// delivers the events that this process leaves there; see [Durability]. They
	// are not encrypted, so put it on an encrypted volume where that matters. It
	// may not be a symlink. Defaults to none: events wait in memory.
	//
	// Where the system has owners and modes, the spool is
	//
	//   - in SpoolDir itself, if it belongs to the user of this process and no other
	//     user may write it; others may read it, because the files have mode 0600;
	//   - in SpoolDir itself, if a spool of this user is there already: where
	//     others have got access to it, as by kubelet for fsGroup, New sets the
	//     modes to 0700 and 0600 again and logs a warning;
	//   - otherwise in its subdirectory "s3sink-spool", which New makes with mode
	//     0700 and uses from then on, whatever becomes of SpoolDir's mode. That is
	//     so in an emptyDir, in a volume with fsGroup, and in /tmp.
	//
	// A spool of another user is a [*SpoolError] that says how to have it delivered.
	// docs/kubernetes.md has an example of each.
	//
	// One sink at a time has the spool. New waits for another one until ctx ends,
	// and then returns [ErrSpoolLocked]; it logs a warning when it has waited for a
	// second.
	SpoolDir string

	// Durability is what an event survives when Track has returned nil, with a
	// SpoolDir. Defaults to [SyncInterval].
	Durability Durability

	// CommitInterval is how old an event becomes, at most, before it is on its
	// way to the disk, if nobody waits for that. Defaults to
	// [DefaultCommitInterval]; the minimum is 10ms.
	CommitInterval time.Duration

	// MaxSpoolBytes bounds the spool's files. Beyond it Track returns
	// [ErrBufferFull], and also when the volume of SpoolDir is nearly full: New
	// logs a warning if the volume has less room than MaxSpoolBytes. Copies of what is damaged come on top, at most a tenth of
	// it. Defaults to [DefaultMaxSpoolBytes].
	MaxSpoolBytes int64

	// AllowNetworkSpool allows a SpoolDir on a network file system, whose locks
	// and syncs cannot be relied on as those of a disk.
	AllowNetworkSpool bool

	// MaxMemory bounds the bytes of events that are not in S3 yet, raw and
	// compressed, and what remembers them, over all sources. Each compressor,
	// one for each core, needs about 3 MiB more while it runs, or three times
	// the largest event. When memory runs short without a
	// SpoolDir, the largest objects are closed early, and none can be larger than
	// MaxMemory. With a SpoolDir their events go to the disk and the objects stay
	// open. Beside MaxMemory, an object that an earlier run has left in SpoolDir
	// takes up to 3 KB until it is delivered, 253 MB for a hundred thousand.
	//
	// Defaults to [DefaultMaxMemory], or 64 MiB with a SpoolDir, and to a quarter
	// of the process's memory limit if that is less: the smallest of GOMEMLIMIT
	// and, on Linux, the limits of its cgroup and that cgroup's parents. New logs
	// the default at Info if a limit lowered it, else at Debug. The minimum, also
	// of the default, is 1 MiB and 4 events of MaxEventBytes.
	MaxMemory int64

	// MaxOpenPartitions bounds how many partitions (a source and a
	// received-day) gather events at once. One more closes the one opened
	// first. Defaults to [DefaultMaxOpenPartitions]; an open one takes at
	// least 5.5 KiB of MaxMemory.
	MaxOpenPartitions int

	// CompressionLevel is gzip's, 1 (fast) to 9 (small). Defaults to
	// [DefaultCompressionLevel].
	CompressionLevel int

	// UploadConcurrency is how many objects are sent at once; fewer after
	// failures. While a caller waits for delivery or for room, attempts that make
	// no progress do not count, and at most as many others run beside them. Defaults to [DefaultUploadConcurrency].
	UploadConcurrency int

	// MinUploadRate is the bytes a second below which an attempt is given up
	// and made anew: its deadline is 30 s and its size at this rate. Defaults
	// to [DefaultMinUploadRate].
	MinUploadRate int64

	// RetryParked is how often one or two uploads are tried while the bucket
	// refuses them for a reason that a person must mend, such as a missing
	// permission. Defaults to [DefaultRetryParked].
	RetryParked time.Duration

	// Logger gets what a person should know, never an event's content nor a
	// secret. Defaults to slog.Default() from Warn up; slog.DiscardHandler
	// silences it. It gets the AWS SDK's own log at Debug, unless Config.AWS has
	// a Logger.
	Logger *slog.Logger

	// Hooks are told what happens to objects.
	Hooks Hooks

	// HTTPClient is used for S3 and STS; its redirect policy is not. Defaults
	// to one made like the AWS SDK's. If its Transport panics the request has
	// failed; a panic on a goroutine that it started ends the process.
	HTTPClient *http.Client

	// AWS replaces the configuration that the SDK loads from the environment
	// and the shared files. Its Region is not used.
	AWS *aws.Config
}

// CreateOnly says whether uploads send If-None-Match: *.
type CreateOnly int

// Settings of [Config].CreateOnly.
const (
	CreateOnlyAuto CreateOnly = iota // on when the endpoint is AWS's, off elsewhere
	CreateOnlyOn
	CreateOnlyOff
)

// SignPayload says whether uploads over https sign the SHA-256 of the object.
type SignPayload int

// Settings of [Config].SignPayload.
const (
	SignPayloadAuto SignPayload = iota // off when the endpoint is AWS's, on elsewhere
	SignPayloadOn
	SignPayloadOff
)

// maxSourceID is far more than ids have, and leaves room in a key.
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

// validate reports everything that is wrong, joined.
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

// maxSessionPolicy is STS's limit, in characters.
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

// place returns the name of the bucket and what every key begins with: the
// prefixes with a slash at their end, or "".
func (c *Config) place() (bucket, prefix string) {
	bucket, path := splitBucket(c.Bucket, c.Prefix)
	if path == "" {
		return bucket, ""
	}
	return bucket, path + "/"
}

// partition is the part of AWS that the bucket is in, as far as the Config
// tells.
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

// hintRegions are where a bucket of each partition is asked for first.
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
		errs.add(field, redacted, "a URL without user, password or query; keys belong into Credentials")
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
		errs.add("SpoolDir", "", "a directory: without one nothing outlives the process")
	}
	number("MaxOpenPartitions", int64(c.MaxOpenPartitions), 1, 10_000_000)
	number("CompressionLevel", int64(c.CompressionLevel), 1, 9)
	number("UploadConcurrency", int64(c.UploadConcurrency), 1, 1000)
	number("MinUploadRate", c.MinUploadRate, 1, 1<<50)
	duration("RetryParked", c.RetryParked, time.Second, 24*time.Hour)
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f }
