package policy_test

import (
	"fmt"
	"log"

	"github.com/s3sink/s3sink/policy"
)

// The policies of a service that writes as a role of another account.
func ExampleFor() {
	sink := policy.Sink{
		Bucket: "acme-events",
		Folder: "segment-logs/",
		Roles:  []policy.Role{{ARN: "arn:aws:iam::123456789012:role/S3Sink", ExternalID: "acme-42"}},
	}
	set, err := policy.For(sink, policy.Input{Caller: "arn:aws:iam::210987654321:role/checkout"})
	if err != nil {
		log.Fatal(err) // names every wrong field
	}
	for _, p := range set {
		fmt.Println(p.Kind, "of", p.Of)
		for _, statement := range p.Document.Statement {
			fmt.Println(" ", statement)
		}
	}
	// Output:
	// permissions of arn:aws:iam::210987654321:role/checkout
	//   {"Effect":"Allow","Action":["sts:AssumeRole"],"Resource":["arn:aws:iam::123456789012:role/S3Sink"]}
	// trust policy of arn:aws:iam::123456789012:role/S3Sink
	//   {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:role/checkout"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["acme-42"]}}}
	// permissions of arn:aws:iam::123456789012:role/S3Sink
	//   {"Sid":"WriteObjects","Effect":"Allow","Action":["s3:PutObject"],"Resource":["arn:aws:s3:::acme-events/segment-logs/*"]}
}
