"""The pipeline: the only room that knows all others.

::

    api                     keywords become a request
    engine, inspection      the three ways to load, with torch · what headers tell, without
    prepare/  retry/        from a request to a stream, of which only headers were read · begun once more
    stream/                 a job is carried out: tensors one by one, up to the end and the report
    group/                  who loads: one process, or several that agree, divide and plan together
    read/  target/          extents, from storage, past the host or from other ranks · where the tensors shall live
    prove/  request/        which shards are proven, and by what · what is asked for
    importing               importing torch while signals come

Each imports from those below it. A load is a stream that was collected, and one into a module a stream whose memory is
the module's own.
"""
