"""A simulated cell: a bioreactor as a real OPC UA server, a pump and a balance as a real Modbus TCP server."""
