package setup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/policy"
)

// flagByField maps the field of a ConfigError or InputError to the flag that sets it.
var flagByField = map[string]string{
	"Bucket": "bucket", "Prefix": "prefix", "SourceID": "source", "KeyFormat": "key-format",
	"Region": "region", "Endpoint": "endpoint", "STSRegion": "sts-region", "STSEndpoint": "sts-endpoint",
	"Credentials.RoleARN": "role", "Credentials.ExternalID": "external-id",
	"Encryption.Key": "sse", "ACL": "acl", "ExpectedBucketOwner": "expected-owner",
	"Input.Caller": "caller", "Input.Writer": "writer", "Input.BucketKMSKey": "bucket-key",
}

// nameFlags rewrites each ConfigError and InputError in err so that it names the
// flag instead of the field.
func (o *options) nameFlags(err error) error {
	var errs []error
	for _, err := range splitErrors(err) {
		var config *s3sink.ConfigError
		var input *policy.InputError
		switch {
		case errors.As(err, &config):
			err = flagError(o.flag(config), config.Value, config.Want)
		case errors.As(err, &input):
			err = flagError(cmp.Or(flagByField[input.Field], input.Field), input.Value, input.Want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// flagError reports an invalid value of a flag.
func flagError(flag, value, want string) error {
	return fmt.Errorf("-%s %q: want %s%s", flag, value, want, sessionHint(value))
}

// flag returns the flag that set the invalid value.
func (o *options) flag(e *s3sink.ConfigError) string {
	viaHas := func(part int) bool {
		return slices.ContainsFunc(o.via, func(v string) bool {
			return strings.SplitN(v+" ", " ", 3)[part] == e.Value
		})
	}
	switch {
	case e.Field == "Credentials.RoleARN" && e.Value != o.role && viaHas(0),
		e.Field == "Credentials.ExternalID" && e.Value != o.externalID && viaHas(1):
		return "via"
	case e.Field == "Prefix" && o.prefix == "":
		return "bucket" // NAME/PATH
	}
	return cmp.Or(flagByField[e.Field], e.Field)
}

// sessionHint returns a hint if value is the ARN of a role session. Policies need
// the ARN of the role, but `aws sts get-caller-identity` prints the session.
func sessionHint(value string) string {
	p := strings.Split(value, ":")
	if len(p) != 6 || p[2] != "sts" {
		return ""
	}
	session := strings.Split(p[5], "/")
	if len(session) != 3 || session[0] != "assumed-role" {
		return ""
	}
	return fmt.Sprintf("; this is a session of arn:%s:iam::%s:role/%s (add the role's path before its name, if it has one)", p[1], p[4], session[1])
}

// splitErrors returns the errors that errors.Join has joined.
func splitErrors(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, err := range joined.Unwrap() {
			all = append(all, splitErrors(err)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
