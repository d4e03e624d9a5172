package setup

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
)

type options struct {
	print, dir     string
	validate, json bool
	timeout        time.Duration

	bucket, prefix, source, keyFormat string
	region, endpoint                  string
	pathStyle, allowPlaintext         bool

	role, externalID       string
	via                    []string
	stsRegion, stsEndpoint string
	noSessionPolicy        bool

	sse, acl, expectedOwner string

	caller, writer, bucketKey string
	crossAccount, warehouse   bool

	set map[string]bool // flags on the command line

	// Derived from the flags.
	config   s3sink.Config
	policies policy.Set
}

const usage = `Setup prints the policies that a sink needs in AWS, and checks whether the sink can write.

  s3sink setup                                  a demonstration, on an S3 inside this program
  s3sink setup -bucket NAME -role ARN -external-id ID -caller ARN -print cli
                                                the policies, as commands of the AWS CLI
  s3sink setup -bucket NAME -role ARN -external-id ID
                                                can the sink write?

The program uses the identity of the AWS environment (AWS_ACCESS_KEY_ID, AWS_PROFILE
and so on). The exit code is 0 if the sink can write, 1 if not, and 2 for invalid flags.

Flags:
`

// The values of -print.
const (
	asJSON      = "json"
	asTerraform = "terraform"
	asCLI       = "cli"
)

var keyFormats = map[string]s3sink.KeyFormat{
	"segment":            s3sink.SegmentKeys,
	"rudderstack":        s3sink.RudderStackKeys,
	"rudderstack-listed": s3sink.RudderStackListedKeys,
	"hive":               s3sink.HiveKeys,
}

// parseOptions parses and checks the flags. It returns flag.ErrHelp after it
// has printed the help.
func parseOptions(args []string, help io.Writer) (options, error) {
	o := options{set: map[string]bool{}}
	f := flag.NewFlagSet("s3sink setup", flag.ContinueOnError)
	f.SetOutput(io.Discard) // the caller prints the error
	f.Usage = func() {}
	f.StringVar(&o.print, "print", "", "print the policies as `FORM` (json, terraform or cli) and do not validate")
	f.StringVar(&o.dir, "dir", "", "with -print terraform, write the module's files under `DIR`")
	f.BoolVar(&o.validate, "validate", false, "with -print, also validate")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "time limit of the validation")

	f.StringVar(&o.bucket, "bucket", "", "`NAME` of the bucket, optionally NAME/PATH")
	f.StringVar(&o.prefix, "prefix", "", "put this before every `KEY`")
	f.StringVar(&o.source, "source", "setup", "source `ID`; it affects neither the policies nor the validation")
	f.StringVar(&o.keyFormat, "key-format", "segment", "layout of keys: segment, rudderstack, rudderstack-listed, hive or a `TEMPLATE`")
	f.StringVar(&o.region, "region", "", "`REGION` of the bucket (default: the sink asks S3)")
	f.StringVar(&o.endpoint, "endpoint", "", "`URL` of an S3 that is not AWS's")
	f.BoolVar(&o.pathStyle, "path-style", false, "put the bucket into the path of the URL (default: with -endpoint)")
	f.BoolVar(&o.allowPlaintext, "allow-plaintext", false, "allow http:// to other hosts in -endpoint and -sts-endpoint")

	f.StringVar(&o.role, "role", "", "`ARN` of the IAM role to write as")
	f.StringVar(&o.externalID, "external-id", "", "external `ID` that the role demands")
	f.Func("via", "`ARN` of an intermediate role, followed by a space and the external id if the role demands one; repeat the flag for several roles, in the order in which they are assumed", func(v string) error {
		o.via = append(o.via, v)
		return nil
	})
	f.StringVar(&o.stsRegion, "sts-region", "", "`REGION` of the STS that assumes the roles (default: the region of the bucket)")
	f.StringVar(&o.stsEndpoint, "sts-endpoint", "", "`URL` of an STS that is not AWS's")
	f.BoolVar(&o.noSessionPolicy, "no-session-policy", false, "do not restrict the role's sessions to the requests of the sink")

	f.StringVar(&o.sse, "sse", "", "encryption of the objects: s3, or the ARN, id or alias of a KMS `KEY` (default: the setting of the bucket)")
	f.StringVar(&o.acl, "acl", "", "canned `ACL` of the objects")
	f.StringVar(&o.expectedOwner, "expected-owner", "", "`ACCOUNT` id that must own the bucket")

	f.StringVar(&o.caller, "caller", "", "`ARN` of the role or user that assumes the first role; for the trust policy")
	f.StringVar(&o.writer, "writer", "", "`ARN` of the user or role that writes when there is no -role; for the policies of bucket and key")
	f.StringVar(&o.bucketKey, "bucket-key", "", "`ARN` of the KMS key that the bucket encrypts with by default; for the policies")
	f.BoolVar(&o.crossAccount, "cross-account", false, "the bucket is in another account than the role or -writer; for the policies")
	f.BoolVar(&o.warehouse, "warehouse", false, "the role or -writer also reads and lists the objects; for the policies")
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(help, usage)
		f.SetOutput(help)
		f.PrintDefaults()
	}
	if err != nil {
		return o, err
	}
	f.Visit(func(f *flag.Flag) { o.set[f.Name] = true })
	if err := o.check(f.Args()); err != nil || o.bucket == "" {
		return o, err
	}
	o.config = o.makeConfig()
	o.policies, err = o.config.Policies(o.policyInput())
	return o, o.nameFlags(err)
}

// check refuses flags that would have no effect. An -external-id without -role,
// for example, would validate a sink that uses no role at all.
func (o *options) check(rest []string) error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	requires := func(other string, has bool, flags ...string) {
		for _, name := range flags {
			if o.set[name] && !has {
				refuse("-%s needs %s; see -h", name, other)
			}
		}
	}
	if len(rest) > 0 {
		refuse("unexpected argument %q; see -h", rest[0])
	}
	if o.bucket == "" {
		for _, name := range slices.Sorted(maps.Keys(o.set)) {
			if name != "json" && name != "bucket" {
				requires("-bucket", false, name)
			}
		}
		if o.set["bucket"] {
			refuse("-bucket is empty")
		}
		return errors.Join(errs...)
	}
	requires("-role", o.role != "", "external-id", "via", "sts-region", "sts-endpoint", "no-session-policy", "caller")
	requires("-print", o.print != "", "validate")
	requires("-print terraform", o.print == asTerraform, "dir")
	switch o.print {
	case "", asJSON, asTerraform, asCLI:
	default:
		refuse("-print %s: want json, terraform or cli", o.print)
	}
	switch {
	case o.print == "" && o.set["print"]:
		refuse("-print: want json, terraform or cli")
	case o.writer != "" && o.role != "":
		refuse("-writer is for writing without a role; for the principal that assumes -role use -caller")
	}
	if o.bucketKey != "" && (o.sse == "s3" || strings.HasPrefix(o.sse, "arn:")) {
		refuse("-bucket-key has no effect with -sse %s, which overrides the bucket's key", o.sse)
	}
	if o.timeout <= 0 {
		refuse("-timeout %v: want more than 0", o.timeout)
	}
	return errors.Join(errs...)
}

func (o *options) makeConfig() s3sink.Config {
	format, ok := keyFormats[o.keyFormat]
	if !ok {
		format = s3sink.KeyFormat(o.keyFormat)
	}
	return s3sink.Config{
		Bucket: o.bucket, Prefix: o.prefix, SourceID: o.source, KeyFormat: format,
		Region: o.region, Endpoint: o.endpoint,
		UsePathStyle:   o.pathStyle || o.endpoint != "" && !o.set["path-style"],
		AllowPlaintext: o.allowPlaintext,
		STSRegion:      o.stsRegion, STSEndpoint: o.stsEndpoint,
		Credentials:         o.credentials(),
		Encryption:          o.encryption(),
		ACL:                 o.acl,
		ExpectedBucketOwner: o.expectedOwner,
	}
}

func (o *options) credentials() s3sink.Credentials {
	as := s3sink.Ambient()
	var opts []s3sink.RoleOption
	if o.noSessionPolicy {
		opts = append(opts, s3sink.WithoutSessionPolicy())
	}
	for _, via := range o.via {
		arn, id, _ := strings.Cut(via, " ")
		as = s3sink.AssumeRole(arn, id, append(opts, s3sink.Via(as))...)
	}
	if o.role != "" {
		as = s3sink.AssumeRole(o.role, o.externalID, append(opts, s3sink.Via(as))...)
	}
	return as
}

func (o *options) encryption() s3sink.Encryption {
	switch o.sse {
	case "":
		return s3sink.BucketDefault()
	case "s3":
		return s3sink.SSES3()
	}
	return s3sink.SSEKMS(o.sse)
}

func (o *options) policyInput() policy.Input {
	return policy.Input{
		Caller: o.caller, Writer: o.writer, BucketKMSKey: o.bucketKey,
		CrossAccount: o.crossAccount, Warehouse: o.warehouse,
	}
}
