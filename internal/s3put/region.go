package s3put

import (
	"context"
	"errors"
	"fmt"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const regionHeader = "X-Amz-Bucket-Region"

var regionName = regexp.MustCompile(`^[a-z0-9-]{1,64}$`)

var errNoRegion = errors.New("the answer to HeadBucket names no region")

// defaultRegion is the region in signatures for endpoints other than AWS. Those
// stores need some region in the signature, and every store accepts this one.
const defaultRegion = "us-east-1"

// region returns the bucket's region. It returns the configured region; or the
// region in S3's answer to an unsigned HEAD, which names it even in a refusal; or
// the region in the answer to a signed HEAD, for partitions that ignore anonymous
// callers. It ignores AWS_REGION, which names the region where the program runs.
func (c *Client) region(ctx context.Context) (string, error) {
	if c.set.Region != "" {
		return c.set.Region, nil
	}
	hint := c.set.HintRegion
	if hint == "" {
		hint = defaultRegion
	}
	anonymous := c.build(hint, aws.AnonymousCredentials{})
	if anonymous.Options().BaseEndpoint != nil {
		return hint, nil
	}
	region, unsigned := headBucket(ctx, anonymous, c.set.Bucket)
	if region != "" {
		return region, nil
	}
	region, signed := headBucket(ctx, c.build(hint, c.credentials(hint)), c.set.Bucket)
	if region != "" {
		return region, nil
	}
	err := fmt.Errorf("the region of bucket %q is not known and S3 did not name it; set Config.Region: %w",
		c.set.Bucket, errors.Join(unsigned, signed))
	return "", discoveryError(err, signed)
}

// discoveryError classifies a failed discovery by its last answer. A retry after
// an answer without a region would get the same answer, so an operator must act.
func discoveryError(err, last error) *Error {
	e := newError(last)
	if errors.Is(last, errNoRegion) || e.Class != Transient {
		e.Class = Parked
	}
	e.Err = err
	return e
}

// headBucket returns the region that the answer names, whatever its status.
func headBucket(ctx context.Context, client *s3.Client, bucket string) (string, error) {
	out, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
	if err == nil {
		if r := aws.ToString(out.BucketRegion); regionName.MatchString(r) {
			return r, nil
		}
		return "", errNoRegion
	}
	var re *awshttp.ResponseError
	if errors.As(err, &re) && re.Response != nil {
		return regionIn(re.Response), err
	}
	return "", err
}

func regionIn(r *smithyhttp.Response) string {
	if r.Response == nil {
		return ""
	}
	if region := r.Header.Get(regionHeader); regionName.MatchString(region) {
		return region
	}
	return ""
}

// follow handles an answer which says that the bucket is in another region. A
// discovered region is replaced: the bucket was deleted and created again
// elsewhere. A configured region is wrong, and an operator must correct it.
func (c *Client) follow(conn *connection, e *Error) {
	var named string
	var re *awshttp.ResponseError
	if errors.As(e.Err, &re) && re.Response != nil {
		named = regionIn(re.Response)
	}
	if named != "" {
		e.Err = fmt.Errorf("the bucket is in %s, not in %s: %w", named, conn.region, e.Err)
	}
	if c.set.Region != "" || conn.s3.Options().BaseEndpoint != nil {
		e.Class = Parked
		return
	}
	var next *connection // nil: discover the region again
	if named != "" {
		next = c.connectionTo(named)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == conn { // otherwise another attempt has replaced it already
		c.conn = next
	}
}
