// The Go program of test/compat/go-grpc.test.ts: grpc-go's own interoperability service and client, which know nothing
// of Dapr but the metadata that names the app. `serve` is the app; `call` runs one scenario and exits with 0 when
// everything was as expected; `many` holds that many streams open at once.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	v1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	v1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
)

const limit = 60 * time.Second

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	err := errors.New("usage: program serve | call <scenario> <app> | many <count> <app>")
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	case len(os.Args) == 4 && os.Args[1] == "call":
		err = call(ctx, os.Args[2], os.Args[3])
	case len(os.Args) == 4 && os.Args[1] == "many":
		err = many(ctx, os.Args[2], os.Args[3])
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("APP_PORT"))
	if err != nil {
		return err
	}
	options := []grpc.ServerOption{grpc.MaxRecvMsgSize(64 << 20)}
	if key := os.Getenv("APP_TLS_KEY"); key != "" {
		pair, err := tls.LoadX509KeyPair(os.Getenv("APP_TLS_CERT"), key)
		if err != nil {
			return err
		}
		options = append(options, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	}
	server := grpc.NewServer(options...)
	testpb.RegisterTestServiceServer(server, interop.NewTestServer())
	reflection.Register(server)
	return server.Serve(listener)
}

// connect names the app with every call. Without an app the sidecar itself is meant.
func connect(app string) (*grpc.ClientConn, error) {
	named := func(ctx context.Context) context.Context {
		if app == "" {
			return ctx
		}
		ctx = metadata.AppendToOutgoingContext(ctx, "dapr-app-id", app)
		if os.Getenv("DAPR_STREAM") != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "dapr-stream", os.Getenv("DAPR_STREAM"))
		}
		return ctx
	}
	return grpc.NewClient("127.0.0.1:"+os.Getenv("DAPR_GRPC_PORT"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(named(ctx), method, req, reply, cc, opts...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(named(ctx), desc, cc, method, opts...)
		}))
}

type scenario func(context.Context, testpb.TestServiceClient, ...grpc.CallOption)

// Each ends the process when something is not as it must be.
var scenarios = map[string]scenario{
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"custom_metadata":             interop.DoCustomMetadata,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
}

func call(ctx context.Context, name, app string) error {
	target := app
	if app == "-" {
		target = ""
	}
	connection, err := connect(target)
	if err != nil {
		return err
	}
	defer connection.Close()
	run, found := scenarios[name]
	switch {
	case found:
		run(ctx, testpb.NewTestServiceClient(connection))
	case name == "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, connection)
	case name == "unimplemented_service":
		interop.DoUnimplementedService(ctx, testpb.NewUnimplementedServiceClient(connection))
	case name == "reflection":
		err = reflect(ctx, connection, app)
	default:
		err = errors.New("no such scenario")
	}
	if err == nil {
		fmt.Printf("%s: as expected\n", name)
	}
	return err
}

// reflect asks both versions for the services and for the file of one.
func reflect(ctx context.Context, connection *grpc.ClientConn, app string) error {
	service, method := "grpc.testing.TestService", "UnaryCall"
	if app == "-" {
		service, method = "dapr.proto.runtime.v1.Dapr", "InvokeService"
	}
	stream, err := v1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	list := &v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_ListServices{}}
	symbol := &v1.ServerReflectionRequest{MessageRequest: &v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service}}
	for _, request := range []*v1.ServerReflectionRequest{list, symbol} {
		if err := stream.Send(request); err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if request == list {
			var names []string
			for _, one := range answer.GetListServicesResponse().GetService() {
				names = append(names, one.GetName())
			}
			if !slices.Contains(names, service) {
				return fmt.Errorf("%s is not among %q", service, names)
			}
		} else if err := hasMethod(answer.GetFileDescriptorResponse().GetFileDescriptorProto(), method); err != nil {
			return err
		}
	}
	old, err := v1alpha.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	if err := old.Send(&v1alpha.ServerReflectionRequest{MessageRequest: &v1alpha.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: service + "." + method}}); err != nil {
		return err
	}
	answer, err := old.Recv()
	if err != nil {
		return err
	}
	return hasMethod(answer.GetFileDescriptorResponse().GetFileDescriptorProto(), method)
}

func hasMethod(files [][]byte, method string) error {
	for _, bytes := range files {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(bytes, file); err != nil {
			return err
		}
		for _, service := range file.GetService() {
			for _, one := range service.GetMethod() {
				if one.GetName() == method {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("no method %s in %d files", method, len(files))
}

// many opens the streams one after another, and has a message on each go there and back before any is closed.
func many(ctx context.Context, text, app string) error {
	count, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	connection, err := connect(app)
	if err != nil {
		return err
	}
	defer connection.Close()
	client := testpb.NewTestServiceClient(connection)
	streams := make([]testpb.TestService_FullDuplexCallClient, count)
	var open, done sync.WaitGroup
	failures := make(chan error, count)
	for i := range streams {
		open.Add(1)
		done.Add(1)
		go func() {
			defer done.Done()
			stream, err := client.FullDuplexCall(ctx)
			if err == nil {
				err = pingPong(stream, i%1000+1)
			}
			open.Done()
			open.Wait()
			// All are open now.
			if err == nil {
				err = pingPong(stream, i%1000+1)
			}
			if err == nil {
				err = stream.CloseSend()
			}
			if err == nil {
				if _, end := stream.Recv(); end != io.EOF {
					err = fmt.Errorf("stream %d ends with %v", i, end)
				}
			}
			if err != nil {
				failures <- err
			}
		}()
	}
	done.Wait()
	if len(failures) > 0 {
		return fmt.Errorf("%d of %d streams failed, one of them: %v", len(failures), count, <-failures)
	}
	fmt.Printf("%d streams: as expected\n", count)
	return nil
}

func pingPong(stream testpb.TestService_FullDuplexCallClient, size int) error {
	request := &testpb.StreamingOutputCallRequest{
		ResponseParameters: []*testpb.ResponseParameters{{Size: int32(size)}},
	}
	if err := stream.Send(request); err != nil {
		return err
	}
	answer, err := stream.Recv()
	if err == nil && len(answer.GetPayload().GetBody()) != size {
		err = fmt.Errorf("%d bytes, not %d", len(answer.GetPayload().GetBody()), size)
	}
	return err
}
