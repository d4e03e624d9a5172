package s3sink

import (
	"regexp"
	"strings"
)

// Names of general purpose buckets at AWS, and of buckets in other stores, where
// old buckets may have capitals and underscores.
var (
	awsBucket   = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	otherBucket = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,254}$`)
)

// reservedBucket is a form of names that AWS does not use for general purpose
// buckets.
type reservedBucket struct {
	prefix, suffix string
	want           string // the text of the ConfigError

	// bySDK is true if the AWS SDK recognizes the form, at other endpoints than
	// AWS too: it signs such requests differently, or panics.
	bySDK bool
}

const generalPurpose = "a general purpose bucket; "

// reservedBuckets follow AWS's rules and the endpoint rules of the AWS SDK:
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
var reservedBuckets = []reservedBucket{
	{suffix: "--x-s3", bySDK: true, want: generalPurpose + "--x-s3 is a directory bucket (S3 Express One Zone)"},
	{suffix: "--xa-s3", bySDK: true, want: generalPurpose + "--xa-s3 is an access point of a directory bucket (S3 Express One Zone)"},
	{suffix: "--op-s3", bySDK: true, want: generalPurpose + "--op-s3 is an access point of S3 on Outposts"},
	{suffix: "--ol-s3", want: "the bucket behind the access point; --ol-s3 is an Object Lambda access point"},
	{suffix: "--table-s3", want: generalPurpose + "--table-s3 is a table bucket (S3 Tables)"},
	{suffix: ".mrap", want: "one of the buckets behind it; .mrap is a Multi-Region Access Point"},
	{prefix: "xn--", want: generalPurpose + "AWS gives no bucket a name that begins with xn--"},
	{prefix: "sthree-", want: generalPurpose + "AWS gives no bucket a name that begins with sthree-"},
	{prefix: "amzn-s3-demo-", want: "your own bucket; AWS uses names that begin with amzn-s3-demo- in its documentation"},
}

// checkBucket checks the name of the bucket in Config.Bucket.
func (c *Config) checkBucket(errs *configErrors, name string) {
	elsewhere := c.Endpoint != ""
	shape := awsBucket
	if elsewhere {
		shape = otherBucket
	}
	if strings.Contains(c.Bucket, "://") || strings.HasPrefix(c.Bucket, "arn:") || !shape.MatchString(name) {
		value := c.Bucket
		if strings.ContainsAny(value, "@?") {
			value = redacted // a URL with a password or a signature
		}
		errs.add("Bucket", value, "the name of a bucket (3 to 63 of a-z 0-9 . -), optionally followed by /prefix; not a URI, not an ARN")
		return
	}
	for _, r := range reservedBuckets {
		if (r.bySDK || !elsewhere) && strings.HasPrefix(name, r.prefix) && strings.HasSuffix(name, r.suffix) {
			errs.add("Bucket", name, r.want)
			return
		}
	}
	if elsewhere {
		return
	}
	for _, pair := range []string{"..", ".-", "-."} {
		if strings.Contains(name, pair) {
			errs.add("Bucket", name, "a name in which each part between dots begins and ends with a letter or digit, without "+pair)
			return
		}
	}
	if dottedNumbers.MatchString(name) {
		errs.add("Bucket", name, "the name of a bucket, not an IP address; the address of a store that is not AWS goes into Endpoint")
	}
}

// dottedNumbers matches the form of an IPv4 address. AWS refuses every name of
// that form, including 192.168.5.400.
var dottedNumbers = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+$`)
